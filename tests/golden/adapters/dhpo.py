import torch

from cohort.axes.ratio import sequence
from cohort.recipes.dhpo import token_weight


def _weight(run):
    weight = token_weight(run.batch, mixing=run.config["mixing"], alpha=run.config["alpha"])
    return torch.where(run.batch.mask, weight, 0.0)


OUTPUTS = {"token_weight": _weight, "sequence_ratio": lambda run: sequence(run.batch)[:, 0]}
