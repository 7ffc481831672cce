"""SAPO: Soft Adaptive Policy Optimization. arXiv:2511.20347. Confidence: exact (two public implementations agree).

A hard clip removes the whole gradient of a token at a brittle bound. A smooth gate lowers the weight of a token as its
ratio leaves 1, on both sides and for both signs:

    f(r) = (4 / tau) sigmoid(tau (r - 1)),   tau = tau_pos if A > 0, else tau_neg;      f'(1) = 1
    loss = -(1/N) sum_i (1/L_i) sum_t f(r_it) A_it

Log-ratios are held within 20. Another method, the swarm, is called SAPO too; it is `sapo`.

Defaults: tau 1 and 1.05 (paper): negative advantages spread probability over all other tokens, and fade sooner.
"""

from __future__ import annotations

from typing import Annotated

from cohort.axes import aggregation, ratio, surrogate
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe


@recipe(
    title="Soft Adaptive Policy Optimization",
    paper="arXiv:2511.20347",
    idea="a smooth gate around ratio 1 in place of the clip",
    confidence="exact",
)
def soft_adaptive_po(
    *, tau_pos: Annotated[float, "(0, inf)"] = 1.0, tau_neg: Annotated[float, "(0, inf)"] = 1.05
) -> Method:
    return Method(
        ratio=use(ratio.token_bounded),
        surrogate=use(surrogate.soft_gate, tau_pos=tau_pos, tau_neg=tau_neg),
        aggregation=use(aggregation.sequence_mean),
    )
