from cohort.axes.ratio import token


def _held(run):
    return (run.trained.advantages < 0) & (token(run.trained) > run.config["delta"]) & run.trained.mask


OUTPUTS = {"held": _held}
