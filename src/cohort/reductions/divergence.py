"""f-divergences in variational form, D_f(P || Q) = sup_T E_P[T] - E_Q[f*(T)], with T = g(r) of a log ratio r.

    kl               f = t ln t                              g = r                       f*(g) = exp(r - 1)
    reverse_kl       f = -ln t                               g = -exp(-r)                f*(g) = r - 1
    pearson          f = (t - 1)^2                           g = r                       f*(g) = r + r^2 / 4
    hellinger        f = (sqrt t - 1)^2                      g = 1 - exp(-r/2)           f*(g) = exp(r/2) - 1
    jensen_shannon   f = t ln t - (1 + t) ln((1 + t)/2)      g = ln(2 sigmoid(r))        f*(g) = -ln(2 sigmoid(-r))
    total_variation  f = |t - 1| / 2                         g = tanh(r/2) / 2           f*(g) = g

The canonical link is g = f'(exp r): kl r + 1, pearson 2 (exp r - 1), the others as above.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

# g(r) and f*(g(r)), the latter simplified so that nothing large is subtracted.
Link = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


def bounded(r: Tensor) -> Tensor:
    """r within what exp(2r) and its square can be taken of; beyond it there is no gradient."""
    limit = math.log(torch.finfo(r.dtype).max) / 4
    return r.clamp(-limit, limit)


def _tanh(r: Tensor) -> Tensor:
    return (r / 2).tanh() / 2


TABLE: dict[str, Link] = {
    "kl": (lambda r: r, lambda r: (bounded(r) - 1).exp()),
    "reverse_kl": (lambda r: -(-bounded(r)).exp(), lambda r: r - 1),
    "pearson": (lambda r: r, lambda r: r + r**2 / 4),
    "hellinger": (lambda r: -(-bounded(r) / 2).expm1(), lambda r: (bounded(r) / 2).expm1()),
    "jensen_shannon": (lambda r: math.log(2) + logsigmoid(r), lambda r: -math.log(2) - logsigmoid(-r)),
    "total_variation": (_tanh, _tanh),
}
CANONICAL: dict[str, Link] = {
    **TABLE,
    "kl": (lambda r: r + 1, lambda r: bounded(r).exp()),
    "pearson": (lambda r: 2 * bounded(r).expm1(), lambda r: (2 * bounded(r)).expm1()),
}
LINKS = {"table": TABLE, "canonical": CANONICAL}


def variational(r: Tensor, advantages: Tensor, *, link: Link, conj_clip: float = math.inf) -> Tensor:
    """[N] terms -A g(r) where A > 0, |A| f*(g(r)) elsewhere: their mean estimates minus the divergence of the good from the
    bad side.

    Args:
        r: [N], with gradient.
        advantages: [N], constants.
        conj_clip: bound of |f*(g(r))|, beyond which there is no gradient.
    """
    g, conjugate = link
    bad = conjugate(r).clamp(-conj_clip, conj_clip)
    return torch.where(advantages > 0, -g(r), bad) * advantages.abs()
