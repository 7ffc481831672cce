import torch

from cohort import registry
from cohort.recipes.entropy_top import threshold
from tests.golden.runner import make_batch


def _mask(batch, bound):
    """Which tokens keep an advantage of 1."""
    ones = batch.replace(rewards=torch.zeros(batch.size).double(), advantages=torch.ones(batch.mask.shape).double())
    credit = bound.method.credit[0].bind()
    return (credit(ones, ones.advantages) != 0) & batch.mask


OUTPUTS = {
    "token_mask": lambda run: _mask(run.batch, run.bound),
    "advantages": lambda run: run.assigned["outcome_advantage"],
}


def KIND_credit(case):
    batch, _ = make_batch(case["inputs"])
    fractions = case["config"]["top_fraction"]
    bounds = [registry.method("entropy-top", top_fraction=share).bind() for share in fractions]
    return {
        "threshold": [threshold(batch, share) for share in fractions],
        "token_mask": [_mask(batch, bound) for bound in bounds],
    }


TRAIN = {"lr": 3e-3}
HYPER_TRAIN = "(top_fraction=0.5)"
