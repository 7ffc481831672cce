import torch

from cohort.recipes.gbpo import median_critic_loss

# The sample standard deviation is the method's own.
IGNORE = ("std",)
OUTPUTS = {"target_ratio": lambda run: run.assigned["target_ratio"]}


def KIND_value(case):
    returns, medians = (
        torch.tensor(case["inputs"][name], dtype=torch.float64) for name in ("returns", "median_values")
    )
    loss = median_critic_loss(returns, medians.requires_grad_())
    return {"loss": loss, "grad_median_values": torch.autograd.grad(loss, medians)[0]}
