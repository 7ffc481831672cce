"""StoSignSGD: Unbiased Structural Stochasticity Fixes SignSGD for Training Large Language Models. arXiv:2604.15416.

Confidence: reconstructed: sign(0) = 0, all values; the update was read in a transcription of the paper's algorithm.

SignSGD is biased, since it drops magnitudes. With noise as large as the largest momentum so far, the sign is right on
average, up to a scale for each coordinate:

    m_t     = beta1 m_{t-1} + (1 - beta1) g_t
    G_t     = max(G_{t-1}, |m_t|)
    theta_t = theta_{t-1} - lr ( sign(m_t + G_t n_t) + weight_decay theta_{t-1} ),   n_t ~ Uniform(-1, 1)

A coordinate moves by +-lr, up with probability (1 + m / G) / 2, so E[sign] = m / G. One that never had a gradient stays;
one with m = 0 but G > 0 walks at random. G never falls: one outlier makes a coordinate noisier for good.

The noise is made of `seed`, the step and the place of the parameter, so that replicas draw the same signs and a run
continued from a checkpoint draws what it would have drawn. Defaults are ours: beta1 0.9 and a learning rate like Lion's,
3 to 10 times smaller than AdamW's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from cohort.axes.optimizer import cut_like
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.seeds import derive


class Expected(NamedTuple):
    """Mean and variance of sign(m + G n), and the probability that it is +1, each of m's shape."""

    mean: Tensor
    variance: Tensor
    prob_plus: Tensor


def expected(momentum: Tensor, buffer: Tensor) -> Expected:
    """m / G, 1 - (m / G)^2 and (1 + m / G) / 2; where G is 0 the sign is 0 and the probability 1/2 by convention."""
    moving = buffer > 0
    mean = torch.where(moving, momentum / torch.where(moving, buffer, 1.0), 0.0)
    return Expected(mean, torch.where(moving, 1 - mean**2, 0.0), (1 + mean) / 2)


class StoSignSGD(torch.optim.Optimizer):
    """The update above for every parameter; state: `momentum` and `buffer` of its shape, and `step`."""

    def __init__(self, params: Iterable[Any], lr: float, *, beta1: float, weight_decay: float, seed: int) -> None:
        super().__init__(params, {"lr": lr, "beta1": beta1, "weight_decay": weight_decay, "seed": seed})

    @staticmethod
    def noise(p: Tensor, place: int, step: int, seed: int) -> Tensor:
        """Uniform(-1, 1) of the parameter's shape, the same for the same place, step and seed, on however many ranks."""
        generator = torch.Generator(device=p.device).manual_seed(derive(seed, "sign", step, place))
        drawn = 2 * torch.rand(p.shape, generator=generator, dtype=p.dtype, device=p.device) - 1
        # Never -1, at which m + G n could be 0 for m = G.
        return cut_like(drawn.clamp(min=-1 + torch.finfo(p.dtype).eps), p)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss = closure() if closure is not None else None
        place = -1
        for group in self.param_groups:
            for p in group["params"]:
                place += 1
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state |= {"momentum": torch.zeros_like(p), "buffer": torch.zeros_like(p), "step": 0}
                momentum, buffer = state["momentum"], state["buffer"]
                momentum.mul_(group["beta1"]).add_(p.grad, alpha=1 - group["beta1"])
                torch.maximum(buffer, momentum.abs(), out=buffer)
                update = (momentum + buffer * self.noise(p, place, state["step"], group["seed"])).sign()
                p.sub_(group["lr"] * (update + group["weight_decay"] * p))
                state["step"] += 1
        return loss


def stochastic_sign(
    params: Iterable[Any], lr: float, *, beta1: float = 0.9, weight_decay: float = 0.0, seed: int = 0
) -> torch.optim.Optimizer:
    """StoSignSGD. Source: arXiv:2604.15416."""
    return StoSignSGD(params, lr, beta1=beta1, weight_decay=weight_decay, seed=seed)


@recipe(
    title="StoSignSGD: Unbiased Structural Stochasticity Fixes SignSGD for Training Large Language Models",
    paper="arXiv:2604.15416",
    idea="the sign of the momentum plus noise as large as it has ever been",
    confidence="reconstructed: sign of 0, all values",
)
def stosignsgd(
    *,
    beta1: Annotated[float, "[0, 1)"] = 0.9,
    weight_decay: Annotated[float, "[0, inf)"] = 0.0,
    seed: Annotated[int, "[0, inf)"] = 0,
) -> Method:
    return Method(optimizer=use(stochastic_sign, beta1=beta1, weight_decay=weight_decay, seed=seed))
