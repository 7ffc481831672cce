import torch

from cohort.recipes.opd import distance, gap, still_likely
from tests.golden.runner import make_batch

IGNORE = ("aggregation", "temperature")


def batch(case):
    """With both models' logits at the case's temperature, as passes give them."""
    made, leaves = make_batch(case["inputs"])
    if "logits" in leaves:
        at = case["config"]["temperature"]
        made = made.with_tokens(logits=leaves["logits"] / at, teacher_logits=made.stored("teacher_logits") / at)
    return made, leaves


def _advantages(run):
    gain = gap(run.trained, run.trained.logp, run.config["advantage_clamp"])
    return torch.where(run.trained.mask, gain, 0.0)


OUTPUTS = {
    "divergence": lambda run: distance(run.trained, beta=run.config["beta"]),
    "advantages": _advantages,
    "keep": lambda run: still_likely(run.trained, fall_limit=run.config["fall_limit"]) & run.trained.mask,
}


def random_fields(batch, generator):
    shape = (*batch.mask.shape, 7)
    logits, other = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return batch.with_tokens(logits=logits, teacher_logits=other)


# Against a teacher that is the policy itself nothing is learned: see tests/training/test_teacher.py.
ELSEWHERE = "it learns from another model; see tests/training/test_teacher.py"
