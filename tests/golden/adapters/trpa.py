import torch

from cohort.recipes.trpa import level_pairs, preference_level, preference_loss, trust_region
from cohort.reductions.groups import token_mean
from tests.golden.runner import make_batch


def batch(case):
    inputs = case["inputs"]
    return make_batch({**inputs, "rewards": [float(level == 1) for level in inputs["level"]]})


def _pairs(run):
    """By group id, then winner, then loser."""
    better, worse = level_pairs(run.batch)
    order = sorted(range(len(better)), key=lambda k: (int(run.batch.group[better[k]]), int(better[k]), int(worse[k])))
    return torch.stack([better, worse], 1)[order]


def _preference_loss(run):
    return preference_loss(run.batch, beta=run.config["beta"], anisotropy=run.config["anisotropy"])


OUTPUTS = {
    "log_ratio": lambda run: token_mean(run.batch.logp - run.batch.ref_logp, run.batch.mask),
    "pairs": _pairs,
    "preference_loss": _preference_loss,
    "tr_kl": lambda run: trust_region(run.batch),
}


def KIND_reward(case):
    flags = (torch.tensor(case["inputs"][name]).bool() for name in ("format_ok", "parsed", "answer_ok"))
    return {"level": preference_level(*flags)}


def random_fields(batch, generator):
    """Right rollouts are at level 1 or, with the wrong format, 4; wrong ones at 2, 3 or 4."""
    kept = torch.rand(batch.size, generator=generator) < 0.8
    parsed = torch.rand(batch.size, generator=generator) < 0.7
    return batch.with_rollouts(level=preference_level(kept, parsed, batch["accuracy"] > 0))


# A mean over pairs, and beta 0.1: the gradient is smaller than that of an advantage, and it takes longer.
TRAIN = {"steps": 60}
