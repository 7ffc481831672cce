import torch

from cohort.recipes.papo import patch_keep


def KIND_guidance(case):
    draws = torch.tensor(case["inputs"]["draws"], dtype=torch.float64)
    return {"keep": patch_keep(draws, **case["config"]).double()}


def random_fields(batch, generator):
    """The tokens scored with a masked image."""
    noise = torch.randn(batch.mask.shape, generator=generator, dtype=torch.float64).to(batch.dtype)
    return batch.with_tokens(aug_logp=torch.where(batch.mask, batch["old_logp"] - 0.5 * noise.abs(), 1e4 * noise))
