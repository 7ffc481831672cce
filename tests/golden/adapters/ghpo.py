from cohort import registry
from cohort.recipes.ghpo import beginning
from tests.golden.guided import FakeSampler, guided, requests_of
from tests.golden.runner import make_batch

# What the run's rewards weigh.
IGNORE = ("accuracy_weight", "format_weight")


def refined(by_stage, config, step=0):
    """The final groups of prompts whose rollouts are worth by_stage[stage][prompt][place]."""
    prompts, size = len(by_stage[0]), len(by_stage[0][0])
    sampler = FakeSampler(lambda r: by_stage[r.meta.get("hint_stage", 0)][int(r.prompt.id)][r.meta["place"]], step=step)
    how = {key: config[key] for key in ("start_hint_step",) if key in config}
    method = registry.method("ghpo", ratios=tuple(config["ratios"]), **how)
    groups = guided(method, requests_of(prompts, size, solution=["abcdefgh"] * prompts), sampler)
    return [groups[p] for p in range(prompts)]


def _stage(groups):
    return [members[0].request.meta.get("hint_stage", 0) for members in groups]


def KIND_guidance(case):
    config, inputs = case["config"], case["inputs"]
    if "solution_chars" in inputs:
        lengths = inputs["solution_chars"]
        return {"hint_chars": [[len(beginning("x" * n, ratio)) for ratio in config["ratios"]] for n in lengths]}
    if "steps" in inputs:
        return {"stage": [_stage(refined(inputs["accuracy_by_stage"], config, step)) for step in inputs["steps"]]}
    groups = refined(inputs["accuracy_by_stage"], config)
    ratios = (0.0, *config["ratios"])
    return {
        "stage": _stage(groups),
        "accuracy": [[rollout.accuracy for rollout in members] for members in groups],
        "hint_ratio": [ratios[stage] for stage in _stage(groups)],
    }


def batch(case):
    """The reward of the final rollouts: their accuracy and their format, with the run's weights."""
    inputs, config = dict(case["inputs"]), case["config"]
    if "accuracy_by_stage" in inputs:
        groups, form = refined(inputs.pop("accuracy_by_stage"), config), inputs.pop("format")
        right = [rollout.accuracy for members in groups for rollout in members]
        weights = config["accuracy_weight"], config["format_weight"]
        inputs["rewards"] = [weights[0] * a + weights[1] * f for a, f in zip(right, form, strict=True)]
        inputs["accuracy"] = right
    return make_batch(inputs)


OUTPUTS = {"stage": lambda run: _stage(refined(run.inputs["accuracy_by_stage"], run.config))}
