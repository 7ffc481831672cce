import torch

from cohort.axes.ratio import token
from cohort.recipes.cov import chosen, covariance

IGNORE = ("aggregation",)


def _chosen(run):
    batch, hyper = run.trained, dict(run.method.surrogate.all_hyper)
    del hyper["drift_coef"]
    noise = batch["noise"] if "noise" in batch else torch.zeros_like(batch.logp)
    return chosen(batch, token(batch), batch.advantages, noise, **hyper)


OUTPUTS = {"covariance": lambda run: covariance(run.trained, run.trained.advantages), "chosen": _chosen}
