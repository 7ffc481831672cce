import torch

from cohort.recipes.deepseek_v3_2 import drift, masked_clip

# Properties of the method, not settings.
IGNORE = ("scale_by_std", "unbiased_kl", "aggregation")


def _mask(run):
    """Rollouts whose policy term is there, from the surrogate with and without the mask."""
    batch, hyper = run.trained, run.method.surrogate.all_hyper
    ratio = torch.full_like(batch.logp, 2.0)
    with_mask = masked_clip(batch, ratio, torch.ones_like(ratio), **hyper)
    free = masked_clip(batch, ratio, torch.ones_like(ratio), **{**hyper, "mask_threshold": None})
    return (with_mask == free).all(1)


OUTPUTS = {"sequence_mask": _mask, "drift": lambda run: drift(run.trained, behaviour=run.config["behaviour"])}
