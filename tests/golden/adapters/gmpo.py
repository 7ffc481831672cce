from cohort.recipes.gmpo import held
from cohort.reductions.groups import token_mean


def _bounds(run):
    return {name: run.config[name] for name in ("log_clip_low", "log_clip_high")}


OUTPUTS = {
    "ratio": lambda run: token_mean(held(run.trained, **_bounds(run))[0], run.trained.mask).exp(),
    "clipped": lambda run: held(run.trained, **_bounds(run))[1],
}
IGNORE = ("aggregation",)
