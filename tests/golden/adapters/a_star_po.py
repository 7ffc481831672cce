import torch

from cohort.axes.objective import sequence_log_ratio
from cohort.recipes.a_star_po import _measure, _start
from cohort.types import StepInfo
from tests.golden.runner import make_batch

OUTPUTS = {
    "target": lambda run: run.trained.rewards - run.trained["optimal_value"],
    "implicit_reward": lambda run: run.config["beta2"] * sequence_log_ratio(run.trained),
}


def KIND_advantage(case):
    """Stage 1 as the curriculum's state takes it in."""
    batch, _ = make_batch(case["inputs"])
    states = []
    for beta1 in case["config"]["beta1"]:
        start = _start(batch.groups.count, (), scores=None, beta1=beta1)
        states.append(_measure(batch, start, beta1=beta1, info=StepInfo()))
    first = list(dict.fromkeys(batch["row"].tolist()))
    return {"value": [state["value"][first] for state in states], "all_wrong": states[0]["hopeless"][first]}


def random_fields(batch, generator):
    return batch.with_rollouts(optimal_value=torch.rand(batch.size, generator=generator, dtype=torch.float64))


# One step of stage 1; then every prompt sixteen times a step, once each time.
TRAIN = {"prompts_per_step": 128}
HYPER_TRAIN = "(beta2=0.03)"
