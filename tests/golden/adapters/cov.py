from cohort.axes.ratio import token
from cohort.recipes.cov import chosen, covariance, within

IGNORE = ("aggregation",)


def _chosen(run):
    batch, hyper = run.trained, run.method.surrogate.all_hyper
    ratio, gain = token(batch), batch.advantages
    how = {name: hyper[name] for name in ("variant", "fraction")}
    bounds = {name: hyper[name] for name in ("cov_low", "cov_high", "low", "high")}
    band = within(batch, ratio, gain, **bounds) if how["variant"] == "clip-cov" else None
    return chosen(batch, ratio, gain, band=band, **how)


OUTPUTS = {"covariance": lambda run: covariance(run.trained, run.trained.advantages), "chosen": _chosen}
