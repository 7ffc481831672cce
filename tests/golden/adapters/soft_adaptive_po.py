import torch

from cohort.axes.ratio import token_bounded
from cohort.axes.surrogate import soft_gate


def _gate(run):
    """f and f' at every own token, from the surrogate at advantages of the same sign."""
    batch = run.trained
    ratio = token_bounded(batch).detach().requires_grad_()
    sign = torch.where(batch.advantages > 0, 1.0, -1.0).double()
    taus = {name: run.config[name] for name in ("tau_pos", "tau_neg")}
    value = -soft_gate(batch, ratio, sign, **taus) / sign
    (slope,) = torch.autograd.grad(value.sum(), ratio)
    return torch.where(batch.mask, value, 0.0), torch.where(batch.mask, slope, 0.0)


OUTPUTS = {"gate": lambda run: _gate(run)[0], "weight": lambda run: _gate(run)[1]}
IGNORE = ("aggregation",)
