import torch

from cohort import registry
from cohort.recipes.stosignsgd import expected


def KIND_optimizer(case):
    """The method's own optimizer on one parameter, a step for each gradient, with the case's noise."""
    inputs = {name: torch.tensor(value, dtype=torch.float64) for name, value in case["inputs"].items()}
    if "grads" not in inputs:
        made = expected(inputs["momentum"], inputs["buffer"])
        return {"mean_update": made.mean, "variance_update": made.variance, "prob_plus": made.prob_plus}
    config = dict(case["config"])
    lr = config.pop("lr")
    theta = torch.nn.Parameter(inputs["theta"])
    optimizer = registry.method("stosignsgd", **config).stage("optimizer")([theta], lr)
    optimizer.noise = lambda p, place, step, seed: inputs["noise"][step]
    steps = []
    for grad in inputs["grads"]:
        before = theta.detach().clone()
        theta.grad = grad.clone()
        optimizer.step()
        after, state = theta.detach().clone(), optimizer.state[theta]
        momentum, buffer = state["momentum"].clone(), state["buffer"].clone()
        steps.append(
            {
                "momentum": momentum,
                "buffer": buffer,
                "prob_plus": expected(momentum, buffer).prob_plus,
                "update": (before - after) / lr - config["weight_decay"] * before,
                "theta": after,
            }
        )
    return {"steps": steps}
