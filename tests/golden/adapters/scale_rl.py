import torch

from cohort.axes.ratio import token
from cohort.axes.surrogate import clipped_weight
from cohort.recipes.scale_rl import _offered, mastered, offered

# The old log-probabilities of the cases are the sampler's.
HYPER = {"behaviour": "old"}
IGNORE = ("aggregation",)


def _weights(run):
    batch = run.trained
    weight = clipped_weight(token(batch), batch.advantages, is_clip_low=None, is_clip_high=run.config["weight_max"] - 1)
    out = torch.zeros(run.batch.mask.shape, dtype=weight.dtype)
    out[run.prepared.trained] = torch.where(batch.mask, weight, 0.0)
    return out


OUTPUTS = {"weights": _weights, "used_groups": lambda run: run.trained.groups.labels.sort().values}


def KIND_curriculum(case):
    rates = torch.tensor(case["inputs"]["pass_rate"], dtype=torch.float64)
    state, active = _offered(rates.shape[1]), []
    for row in rates:
        active.append(offered(state))
        seen = (row >= 0).nonzero()[:, 0]
        limit = case["config"]["pass_rate_limit"]
        state = {**state, "mastered": mastered(state, seen, row[seen], pass_rate_limit=limit)}
    return {"active": active}
