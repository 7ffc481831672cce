import torch

from cohort.reductions.groups import group_std


def _per_rollout(name):
    # Every token of a rollout has the same bounds here, and every rollout has a token.
    return lambda run: torch.where(run.assigned.mask, run.assigned[name], -torch.inf).amax(1)


OUTPUTS = {
    "group_variance": lambda run: (group_std(run.batch.rewards, run.batch.groups) ** 2)[run.batch.groups.index],
    "scale": _per_rollout("region_scale"),
    "clip_low": _per_rollout("clip_low"),
    "clip_high": _per_rollout("clip_high"),
}
