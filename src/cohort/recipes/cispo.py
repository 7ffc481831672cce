"""CISPO: Clipped IS-weight Policy Optimization (MiniMax-M1). arXiv:2506.13585. Confidence: exact; that the repetition
rule is applied to drawn rollouts, rather than while they are drawn, is ours and gives the same rollouts.

The importance weight is clipped and detached, so that every token keeps a gradient:

    w_it = sg[ clip(rho, 1 - is_clip_low, 1 + is_clip_high) ] M_it
    loss = -(1/sum(m)) sum_it m_it w_it A_i logp_it

M is 1, or with `mask_low`/`mask_high` the PPO mask (0 where A > 0 and rho > 1 + mask_high, or A < 0 and
rho < 1 - mask_low). A rollout stops where `run_length` tokens in a row have probability above `prob_threshold`.

Defaults: no lower clip, repetition rule 3000 tokens above 0.99 (paper); upper bound 5 on the weight (public trainers;
the paper tunes it). The paper's AdamW uses beta2 0.95 and eps 1e-15.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation, surrogate
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.types import Request, Rollout
from cohort.types.access import Sampler


def stop_index(token_probs: Tensor, *, prob_threshold: float, run_length: int) -> int:
    """Index of the token that completes the first run of `run_length` tokens above the threshold; -1 if none does."""
    if token_probs.numel() < run_length:
        return -1
    sure = (token_probs > prob_threshold).to(torch.int64)
    total = torch.cat([sure.new_zeros(1), sure.cumsum(0)])
    complete = (total[run_length:] - total[:-run_length] == run_length).nonzero()
    return int(complete[0]) + run_length - 1 if len(complete) else -1


def stop_repetition(
    requests: Sequence[Request], sampler: Sampler, *, prob_threshold: float = 0.99, run_length: int = 3000
) -> list[Rollout]:
    """Rollouts cut where they run into a long stretch of near-certain tokens."""
    out = []
    for rollout in sampler.generate(requests):
        probs = torch.tensor(rollout.sampler_logp, dtype=torch.float64).exp()
        stop = stop_index(probs, prob_threshold=prob_threshold, run_length=run_length)
        out.append(rollout if stop < 0 else sampler.cut(rollout, stop + 1))
    return out


@recipe(
    title="MiniMax-M1: Scaling Test-Time Compute Efficiently with Lightning Attention",
    paper="arXiv:2506.13585",
    idea="clip the importance weight, not the gradient: every token keeps one",
    confidence="exact",
)
def cispo(
    *,
    is_clip_low: Annotated[float | None, "[0, 1]"] = None,
    is_clip_high: Annotated[float, "[0, inf)"] = 4.0,
    mask_low: Annotated[float | None, "[0, 1]"] = None,
    mask_high: Annotated[float | None, "[0, inf)"] = None,
    prob_threshold: Annotated[float, "(0, 1)"] = 0.99,
    run_length: Annotated[int, "[1, inf)"] = 3000,
) -> Method:
    clip = {"is_clip_low": is_clip_low, "is_clip_high": is_clip_high, "mask_low": mask_low, "mask_high": mask_high}
    return Method(
        sampling=use(stop_repetition, prob_threshold=prob_threshold, run_length=run_length),
        surrogate=use(surrogate.weighted_reinforce, **clip),
        aggregation=use(aggregation.token_mean),
    )
