import torch

from cohort.recipes.f_grpo import implicit_reward
from cohort.reductions.divergence import CANONICAL, TABLE
from tests.golden.runner import Run

OUTPUTS = {
    "implicit_reward": lambda run: implicit_reward(run.batch, beta=run.config["beta"], gamma=run.config["gamma"])
}


def _one(case, divergence):
    """Loss and row sums of the gradient with one of the divergences."""
    run = Run("f-grpo", {**case, "config": {**case["config"], "divergence": divergence}}, None)
    return {"loss": run.loss.total, "grad_logp_row_sum": run.gradients["logp"].sum(1)}


def KIND_objective(case):
    inputs = case["inputs"]
    if "r" not in inputs:
        return {divergence: _one(case, divergence) for divergence in TABLE}
    r = torch.tensor(inputs["r"], dtype=torch.float64)
    return {
        name: {"link": link(r), "conjugate_of_link": conjugate(r), "canonical_link": CANONICAL[name][0](r)}
        for name, (link, conjugate) in TABLE.items()
    }
