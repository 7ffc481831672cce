from cohort.axes.ratio import sequence


def _ratio(run):
    return sequence(run.trained)[:, 0]


def _clipped(run):
    low, high = 1 - run.config["clip_low"], 1 + run.config["clip_high"]
    ratio, advantages = _ratio(run), run.trained["outcome_advantage"]
    return ratio.clamp(low, high) * advantages < ratio * advantages


OUTPUTS = {"ratio": _ratio, "clipped": _clipped}
IGNORE = ("aggregation", "level")
