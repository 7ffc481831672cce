import torch

from cohort.axes.advantage import centred
from cohort.recipes.gtpo import conflict_weights, entropy_gate
from cohort.reductions.groups import token_mean
from tests.golden.runner import make_batch

# Never divided by the standard deviation, never clipped: both are part of the method.
IGNORE = ("scale_by_std", "clip")


def _entropy(run):
    return token_mean(run.batch["old_entropy"], run.batch.mask)


def _gate(run):
    config = run.config
    return entropy_gate(_entropy(run), initial=config["initial_entropy"], threshold=config["entropy_threshold"])


def _credited(run):
    gate = _gate(run)
    return torch.where(gate, centred(run.batch) - run.config["gamma"] * _entropy(run), 0.0)


OUTPUTS = {
    "group_advantages": lambda run: centred(run.batch),
    "mean_entropy": _entropy,
    "delta": lambda run: _gate(run).double(),
    "lambda": lambda run: conflict_weights(run.batch, centred(run.batch), w_pos=run.config["w_pos"])[0],
    "advantages": _credited,
}


def KIND_credit(case):
    batch, _ = make_batch({**case["inputs"], "rewards": case["inputs"]["group_advantages"]})
    weight, conflict = conflict_weights(batch, batch["group_advantages"], w_pos=case["config"]["w_pos"])
    return {"lambda": weight, "conflict": conflict.double()}


# A sort over tokens is in the maths (see benchmarks/methods.py).
SORTS = "tokens of right and wrong rollouts are matched"
