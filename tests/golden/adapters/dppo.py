from cohort.recipes.dppo import kept, topk_divergence
from tests.golden.runner import tensor

# The old log-probabilities of the cases are the sampler's.
HYPER = {"behaviour": "old"}
IGNORE = ("aggregation",)


def hyper(case):
    return {"gradient": "ratio"} if "drift_coef" in case["config"] else {}


def _keep(run):
    names = ("divergence", "limit_low", "limit_high", "behaviour")
    chosen = {name: run.method.surrogate.all_hyper[name] for name in names}
    return kept(run.trained, run.trained.advantages, **chosen) & run.trained.mask


OUTPUTS = {"keep": _keep}


def KIND_ratio(case):
    inputs = case["inputs"]
    logits, logp, ids = tensor(inputs["logits"]), tensor(inputs["topk_logp"]), tensor(inputs["topk_ids"])
    return {kind: topk_divergence(logits, ids, logp, kind) for kind in ("tv", "kl")}
