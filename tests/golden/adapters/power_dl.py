from cohort.recipes.power_dl import deltas, moved
from tests.golden.preferences import paired
from tests.golden.runner import tensor

KEY = "objective/robust_preference"


def batch(case):
    return paired(case["inputs"])


def states(run):
    return {KEY: {"labels": tensor(run.inputs["labels"]).double()}}


def _delta(run):
    return deltas(run.trained, beta=run.config["beta"], weight=run.config["weight"])[0]


OUTPUTS = {
    "delta": _delta,
    "labels_used": lambda run: run.states[KEY]["labels"],
    "labels_next": lambda run: run.method.bind(run.states).on_step_end(run.trained, [], None)[KEY]["labels"],
}


def KIND_state(case):
    """The labels after each step."""
    labels, out = tensor(case["inputs"]["labels0"]), []
    for delta in case["inputs"]["delta_per_step"]:
        labels = moved(labels, tensor(delta), gamma=case["config"]["gamma"])
        out.append(labels)
    return {"labels_per_step": out}


# Without a reference policy the anchor alone keeps the likelihood of right answers up at the micro task's learning rates.
TRAIN, HYPER_TRAIN = {"lr": 4e-3}, "(eta=0.2)"
