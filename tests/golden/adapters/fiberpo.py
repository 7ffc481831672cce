import torch

# Where there are four levels, the domains come from the data.
HYPER = {"domain": "domain"}


def _ratio(run):
    ratio = run.method.stage("ratio")(run.trained)
    return torch.where(run.trained.mask, ratio, 0.0)


OUTPUTS = {"gated_ratio": _ratio, "gated_deviation": lambda run: torch.where(run.trained.mask, _ratio(run) - 1, 0.0)}
