from cohort.axes.ratio import token_bounded

RENAME = {"dual_clip": "cap"}


def _held(run):
    return (run.trained.advantages < 0) & (token_bounded(run.trained) > run.config["dual_clip"]) & run.trained.mask


OUTPUTS = {"held": _held}
