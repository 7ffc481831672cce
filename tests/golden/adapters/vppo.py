import torch

from cohort.recipes.vppo import token_scores, trajectory_scale
from cohort.reductions.groups import token_mean, top_tokens
from tests.golden.adapters.papo import random_fields as random_fields
from tests.golden.runner import make_batch


def _shown(batch, config):
    """What the credit is made of."""
    scores = token_scores(batch)
    means = token_mean(scores, batch.mask)
    alpha, beta_max = trajectory_scale(means, batch.mask.any(1), beta_min=config["beta_min"])
    return {
        "token_scores": torch.where(batch.mask, scores, 0.0),
        "trajectory_scores": means,
        "scale": alpha,
        "beta_max": beta_max,
        "token_mask": top_tokens(scores, batch.mask, config["token_fraction"]).double(),
    }


def _of(name):
    return lambda run: _shown(run.assigned, run.config)[name]


def _advantages(run):
    """Where a token is trained, the method's own; a rollout without tokens shows its scaled advantage."""
    kept = run.assigned.advantages
    scaled = run.assigned["outcome_advantage"] * _shown(run.assigned, run.config)["scale"]
    looking = _shown(run.assigned, run.config)["token_mask"].bool()
    assert torch.allclose(kept, torch.where(looking, scaled[:, None], 0.0))
    return scaled


OUTPUTS = {
    **{name: _of(name) for name in ("token_scores", "trajectory_scores", "scale", "beta_max", "token_mask")},
    "advantages": _advantages,
}


def KIND_credit(case):
    return _shown(make_batch({**case["inputs"], "rewards": [0.0] * len(case["inputs"]["mask"])})[0], case["config"])


# A sort over tokens is in the maths (see benchmarks/methods.py).
SORTS = "the tokens that depend most on the image"
