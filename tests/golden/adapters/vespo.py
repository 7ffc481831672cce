from cohort.recipes.vespo import log_ratio, soft_weight

OUTPUTS = {
    "log_ratio": lambda run: log_ratio(run.trained, sampler_cap=run.config["sampler_cap"]),
    "phi": lambda run: soft_weight(run.trained, **run.method.ratio.all_hyper)[:, 0],
}
IGNORE = ("aggregation",)
