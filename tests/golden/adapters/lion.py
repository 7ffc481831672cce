import torch

from cohort import registry


def KIND_optimizer(case):
    """The method's own optimizer on one parameter, a step for each gradient."""
    config = dict(case["config"])
    lr = config.pop("lr")
    theta = torch.nn.Parameter(torch.tensor(case["inputs"]["theta"], dtype=torch.float64))
    optimizer = registry.method("lion", **config).stage("optimizer")([theta], lr)
    steps, excess, decay = [], [], config["weight_decay"]
    for grad in case["inputs"]["grads"]:
        before = theta.detach().clone()
        theta.grad = torch.tensor(grad, dtype=torch.float64)
        optimizer.step()
        after = theta.detach().clone()
        momentum = optimizer.state[theta]["momentum"].clone()
        steps.append({"theta": after, "momentum": momentum, "update": (before - after) / lr - decay * before})
        excess.append((after.abs() - 1 / decay).clamp(min=0) if decay else after * 0)
    return {"steps": steps, "bound": 1 / decay if decay else None, "excess": excess}
