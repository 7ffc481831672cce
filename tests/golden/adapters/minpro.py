import torch

from cohort.axes.surrogate import clipped_weight
from cohort.methods import Method
from cohort.recipes.minpro import log_prefix_min, minpro
from cohort.types import Batch

IGNORE = ("aggregation",)


def _shown(batch: Batch, method: Method) -> dict:
    """The ratio as the method takes it, its parts, and the weight that its surrogate makes of it."""
    raw = method.stage("ratio")(batch)
    clip = {k: v for k, v in method.surrogate.all_hyper.items() if k.startswith(("is_clip", "mask_"))}
    parts = {
        "prefix_min": log_prefix_min((batch.logp - batch.old_logp).detach(), batch.mask).exp(),
        "raw": raw,
        "weight": clipped_weight(raw, torch.zeros_like(raw), **clip),
    }
    return {name: torch.where(batch.mask, value, 0.0) for name, value in parts.items()}


OUTPUTS = {name: lambda run, name=name: _shown(run.trained, run.method)[name] for name in ("prefix_min", "weight")}


def KIND_ratio(case):
    mask, logp, old = (torch.tensor(case["inputs"][name], dtype=torch.float64) for name in ("mask", "logp", "old_logp"))
    return _shown(Batch.of(mask, logp=logp, old_logp=old), minpro(**case["config"]))
