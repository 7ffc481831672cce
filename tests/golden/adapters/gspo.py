from cohort.axes.ratio import sequence
from cohort.reductions.groups import token_mean


def _ratio(run):
    return token_mean(sequence(run.trained), run.trained.mask)


def _clipped(run):
    low, high = 1 - run.config["clip_low"], 1 + run.config["clip_high"]
    ratio, advantages = _ratio(run), run.trained["outcome_advantage"]
    return ratio.clamp(low, high) * advantages < ratio * advantages


OUTPUTS = {"ratio": _ratio, "clipped": _clipped}
IGNORE = ("aggregation",)
