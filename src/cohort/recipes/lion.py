"""Lion and Lion-K: Symbolic Discovery of Optimization Algorithms (arXiv:2302.06675); Lion Secretly Solves Constrained
Optimization (arXiv:2310.05898). Confidence: exact; the list of kappa functions is a selection.

    c_t     = beta1 m_{t-1} + (1 - beta1) g_t
    theta_t = theta_{t-1} - lr ( d_kappa(c_t) + weight_decay theta_{t-1} )        Lion: d_kappa = sign
    m_t     = beta2 m_{t-1} + (1 - beta2) g_t

kappa: "l1" (Lion), "l2" (c / |c|), "half_square" (c), "huber" (clip(c / cut, -1, 1)), "l1_trunc" (sign where
|c| > cut), "linf" (sign of the largest coordinate). The norms are over a parameter tensor.

Defaults: beta1 0.9, beta2 0.99 (paper). Use a learning rate 3 to 10 times smaller than AdamW's and a weight decay as
many times larger. Gradient clipping changes the mixture in c and m, not the step size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import torch
from torch import Tensor

from cohort.axes.optimizer import cut_like, whole
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe


def direction(c: Tensor, *, kappa: str = "l1", cut: float = 0.0) -> Tensor:
    """A subgradient of kappa at c, of c's shape; sign(0) = 0."""
    if kappa == "l1":
        return c.sign()
    if kappa == "l2":
        norm = c.norm()
        return c / norm if bool(norm > 0) else torch.zeros_like(c)
    if kappa == "half_square":
        return c
    if kappa == "huber":
        return (c / cut).clamp(-1, 1)
    if kappa == "l1_trunc":
        return torch.where(c.abs() > cut, c.sign(), torch.zeros_like(c))
    flat = torch.zeros_like(c).flatten()
    largest = int(c.abs().argmax())
    flat[largest] = c.flatten()[largest].sign()
    return flat.reshape(c.shape)


class Lion(torch.optim.Optimizer):
    """The update above for every parameter; state: `momentum`, of the parameter's shape."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        beta1: float,
        beta2: float,
        weight_decay: float,
        kappa: str,
        cut: float,
    ) -> None:
        defaults = {"lr": lr, "beta1": beta1, "beta2": beta2, "weight_decay": weight_decay, "kappa": kappa, "cut": cut}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            beta1, beta2 = group["beta1"], group["beta2"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                c, how = beta1 * momentum + (1 - beta1) * p.grad, {"kappa": group["kappa"], "cut": group["cut"]}
                # A norm of all coordinates takes them all, also where ranks have some each.
                over_all = group["kappa"] in ("l2", "linf")
                update = cut_like(direction(whole(c), **how), c) if over_all else direction(c, **how)
                p.sub_(group["lr"] * (update + group["weight_decay"] * p))
                momentum.mul_(beta2).add_(p.grad, alpha=1 - beta2)
        return loss


def lion_k(
    params: Iterable[Any],
    lr: float,
    *,
    beta1: float = 0.9,
    beta2: float = 0.99,
    weight_decay: float = 0.0,
    kappa: str = "l1",
    cut: float = 0.05,
) -> torch.optim.Optimizer:
    """Lion-K. Source: arXiv:2302.06675, arXiv:2310.05898."""
    return Lion(params, lr, beta1=beta1, beta2=beta2, weight_decay=weight_decay, kappa=kappa, cut=cut)


@recipe(
    title="Symbolic Discovery of Optimization Algorithms",
    paper="arXiv:2302.06675, arXiv:2310.05898",
    idea="sign of an interpolated momentum; one buffer per weight",
    confidence="exact",
)
def lion(
    *,
    beta1: Annotated[float, "[0, 1)"] = 0.9,
    beta2: Annotated[float, "[0, 1)"] = 0.99,
    weight_decay: Annotated[float, "[0, inf)"] = 0.0,
    kappa: Annotated[str, ("l1", "l2", "half_square", "huber", "l1_trunc", "linf")] = "l1",
    cut: Annotated[float, "(0, inf)"] = 0.05,
) -> Method:
    how = {"beta1": beta1, "beta2": beta2, "weight_decay": weight_decay, "kappa": kappa, "cut": cut}
    return Method(optimizer=use(lion_k, **how))
