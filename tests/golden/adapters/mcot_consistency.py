import math

import torch

from cohort.recipes.mcot_consistency import consistency, pearson, unwatched, watched
from tests.golden.runner import make_batch
from tests.helpers import with_rewards
from tests.recipes import judges

NAMED = ("consistent",)


def _verdict(values):
    return torch.tensor([math.nan if v is None else float(v) for v in values], dtype=torch.float64)


def judged(batch, values):
    """The batch with the verdicts as the run's only reward."""
    bare = batch.replace(reward_components=torch.zeros(batch.size, 0, dtype=torch.float64))
    return with_rewards(bare, _verdict(values))


def batch(case):
    made, leaves = make_batch({k: v for k, v in case["inputs"].items() if k != "consistent"})
    return judged(made, case["inputs"]["consistent"]), leaves


def _null(value):
    return None if math.isnan(value) else value


def KIND_diagnostic(case):
    inputs = case["inputs"]
    if "rac" in inputs:
        constant = pearson([0.5] * len(inputs["accuracy"]), inputs["accuracy"])
        return {"pearson": pearson(inputs["rac"], inputs["accuracy"]), "constant_series": _null(constant)}
    correct = torch.tensor(inputs["correct"], dtype=torch.float64)
    return consistency(correct, _verdict(inputs["consistent"]))


def KIND_state(case):
    state, out = unwatched(), []
    for rac in case["inputs"]["rac"]:
        state = watched(state, math.nan if rac is None else rac, **case["config"])
        best_step = None if state["best_step"] < 0 else state["best_step"]
        values = {name: _null(state[name]) for name in ("ema", "best", "alarm")}
        out.append({**values, "best_step": best_step})
    return {"after_step": out}


def random_fields(batch, generator):
    verdict = torch.randint(-1, 2, (batch.size,), generator=generator).double()
    return with_rewards(batch, torch.where(verdict < 0, torch.full_like(verdict, math.nan), verdict))


TRAIN = {"thought": True, "reward": ["number", f"0*{judges.__file__}:consistent"]}
