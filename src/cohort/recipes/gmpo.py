"""GMPO: Geometric-Mean Policy Optimization. arXiv:2507.20673, code callsys/GMPO. Confidence: exact.

The arithmetic mean of ratio times advantage is driven by a few tokens with extreme ratios. The geometric mean is less
sensitive to them, and a token that is clipped does not take the rest of its rollout with it:

    d_it = logp_it - old_logp_it;      d'_it = min(d_it, log_clip_high) if A_i > 0, max(d_it, -log_clip_low) if A_i < 0
    s_i  = exp( (1/L_i) sum_t d'_it )
    loss = -(1/N) sum_i s_i A_i

One advantage a rollout is meant; of token advantages their mean decides. Defaults: bounds 0.4 in log space (ratios from
0.67 to 1.49), as the paper has them; bounds of a GRPO configuration mean something else.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation
from cohort.axes.advantage import rollout_means
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import token_mean
from cohort.types import Batch
from cohort.types.declare import needs


def held(batch: Batch, *, log_clip_low: float, log_clip_high: float) -> tuple[Tensor, Tensor]:
    """(d', which tokens are clipped): both [N, T]."""
    gain, moved = rollout_means(batch)[:, None], batch.logp - batch.old_logp
    bounded = torch.where(gain > 0, moved.clamp(max=log_clip_high), moved)
    bounded = torch.where(gain < 0, moved.clamp(min=-log_clip_low), bounded)
    return bounded, batch.mask & (bounded != moved)


@needs("old_logp")
def geometric_mean(batch: Batch, *, log_clip_low: float = 0.4, log_clip_high: float = 0.4) -> Tensor:
    """s_i, the geometric mean of the token ratios, each clipped first, at every token: [N, T]. Source: arXiv:2507.20673."""
    bounded, _ = held(batch, log_clip_low=log_clip_low, log_clip_high=log_clip_high)
    return token_mean(bounded, batch.mask).exp()[:, None].expand_as(batch.logp)


def whole_rollouts(batch: Batch, ratio: Tensor, advantages: Tensor) -> Tensor:
    """-s_i A_i at every place of the rollout, whether a token stands there or not: [N, T]."""
    return -ratio * rollout_means(batch)[:, None]


def rollout_mean(batch: Batch) -> Tensor:
    """Mean over a rollout's tokens, then over rollouts; one without tokens (s_i = 1) counts by its first place: [N, T]."""
    weights = aggregation.sequence_mean(batch).clone()
    weights[:, 0] = torch.where(batch.mask.any(1), weights[:, 0], 1 / batch.size)
    return weights


@recipe(
    title="Geometric-Mean Policy Optimization",
    paper="arXiv:2507.20673",
    idea="the geometric mean of token ratios, clipped token by token in log space",
    confidence="exact",
)
def gmpo(
    *, log_clip_low: Annotated[float, "(0, inf)"] = 0.4, log_clip_high: Annotated[float, "(0, inf)"] = 0.4
) -> Method:
    return Method(
        ratio=use(geometric_mean, log_clip_low=log_clip_low, log_clip_high=log_clip_high),
        surrogate=use(whole_rollouts),
        # The mean of equal token losses over a rollout is the loss of the rollout.
        aggregation=use(rollout_mean),
    )
