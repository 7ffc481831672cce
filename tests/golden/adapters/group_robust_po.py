import torch

from cohort.recipes.group_robust_po import group_losses, moved
from tests.golden.preferences import paired
from tests.golden.runner import tensor

KEY = "objective/worst_group"


def batch(case):
    made, leaves = paired(case["inputs"])
    return made.with_rollouts(stratum=torch.tensor(case["inputs"]["pair_group"]).repeat(2)), leaves


def states(run):
    weights, counts = tensor(run.inputs["weights"]), run.inputs["group_counts"]
    return {KEY: {"codes": list(range(len(counts))), "counts": counts, "log_weights": weights.log()}}


def _losses(run):
    how = {name: run.config[name] for name in ("base", "beta", "scale_by_counts")}
    return group_losses(run.trained, run.states[KEY], **how)


def _weights(run):
    after = run.method.bind(run.states).on_step_end(run.trained, [], None)
    return after[KEY]["log_weights"].exp()


OUTPUTS = {"group_loss": _losses, "weights": _weights}


def KIND_state(case):
    """The weights after each step."""
    weights, out = tensor(case["inputs"]["weights0"]).log(), []
    for losses in case["inputs"]["group_loss_per_step"]:
        weights = moved(weights, tensor(losses), step_size=case["config"]["step_size"])
        out.append(weights.exp())
    return {"weights_per_step": out}


def random_fields(batch, generator):
    # A prompt has one group of labellers.
    return batch.with_rollouts(stratum=batch["row"] % 2 + 5)


HYPER_TRAIN = "(column='task')"
