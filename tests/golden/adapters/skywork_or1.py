from cohort.recipes.skywork_or1 import _start, controlled

IGNORE = ("coefficient", "aggregation")
NAMES = ("delta", "low", "high", "target")


def states(run):
    (key,) = (key for key, axis, _ in run.method.keyed if axis == "regularizer")
    return {**run.method.init(size=run.batch.size), key: {"coefficient": run.config["coefficient"], "gate": 1.0}}


def KIND_state(case):
    config = case["config"]
    state, used, after, gates = _start(config["start"]), [], [], []
    for entropy in case["inputs"]["entropy"]:
        used.append(state["coefficient"] * state["gate"])
        state = controlled(state, entropy, **{name: config[name] for name in NAMES})
        after.append(state["coefficient"])
        gates.append(state["gate"])
    return {"coefficient_used": used, "coefficient_after": after, "gate_after": gates}


OUTPUTS = {"mean_entropy": lambda run: run.trained["entropy"][run.trained.mask].mean()}
