import torch

from cohort.recipes.nft import correct_rate


def _ascending(batch, values):
    """Values [P] in the order of the groups' labels."""
    return values[torch.argsort(batch.groups.labels)]


def _kept(run):
    return run.batch.group[run.kept].unique()


OUTPUTS = {
    "correct_rate": lambda run: _ascending(run.batch, correct_rate(run.batch, threshold=None)),
    "kept_groups": _kept,
}
