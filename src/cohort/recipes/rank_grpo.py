"""Rank-GRPO: Training LLM-based Conversational Recommender Systems with Reinforcement Learning. arXiv:2510.20150.

Code yaochenzhu/Rank-GRPO. Confidence: exact (aggregation "rank-mean" is inferred).

    hit_k   = 1 if the k-th line names a true item that no line before it named
    r_k     = hit_k                                            reward="exp_inf"
              sum over j >= k of hit_j / log2(j + 1)           "log_decay": the gain of the list from rank k on
    A_ik    = (r_ik - mean_g r_k) / (std_g r_k + 1e-4), sample deviation, rank by rank
    rank(t) = line breaks before token t (a break belongs to the line it ends); from K on, overflow
    A_it    = A_i,rank(t); 0 for overflow and the end token; plus what `length_shaping` says
    rho_it  = exp( mean over the tokens of its rank of (logp - old_logp) ), the overflow being one rank
    loss    = token mean of -min(rho A, clip(rho, 0.94, 1.08) A)

length_shaping (None: nothing): `extra_token` for each overflow token; `end_of_list` for an end token in line K,
`early_stop` for an earlier one. "rank-mean" averages over the tokens of each rank, and divides the sum by N K.
The column `items` lists the true items, as "Title" or "Title (year)"; `seen` may name another with items that count no
more. A true item is taken to be in the catalogue. The run's reward measures the whole list (ranking: its NDCG).
Defaults: K 20, clip 0.06 and 0.08, shaping 0.1 (paper, code).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation as aggregations
from cohort.axes import surrogate
from cohort.axes.advantage import standardise
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.signals.items import hits, rank_rewards
from cohort.types import Batch
from cohort.types.access import ModelAccess
from cohort.types.declare import declare, hooks, needs

SHAPING = {"extra_token": -0.1, "end_of_list": 0.1, "early_stop": -0.1}


def read_lists(batch: Batch, access: ModelAccess, *, num_items: int, items: str, seen: str | None) -> Batch:
    """Read in the texts. The batch with `hits` [N, K], `newlines` [N, T] and `eos` [N], place of the end token or -1."""
    old = access.column(seen) if seen else [None] * batch.size
    each = zip(access.rollouts, access.column(items), old, strict=True)
    found = torch.tensor([hits(rollout.text, true, lines=num_items, seen=known or ()) for rollout, true, known in each])
    ends = torch.tensor([len(rollout.tokens) - 1 if rollout.finished else -1 for rollout in access.rollouts])
    used, place = batch["token_ids"].unique(return_inverse=True)
    breaks = torch.tensor([access.decode([token]).count("\n") for token in used.tolist()], device=batch.device)
    batch = batch.with_tokens(newlines=breaks[place])
    return batch.with_rollouts(hits=found.to(batch.device), eos=ends.to(batch.device))


def token_ranks(batch: Batch, most: int = 2**62) -> Tensor:
    """[N, T] int64: line breaks in the tokens before each, at most `most`."""
    return (batch["newlines"].cumsum(1) - batch["newlines"]).clamp(max=most)


def _ends(batch: Batch) -> Tensor:
    return batch.mask & (torch.arange(batch.mask.shape[1], device=batch.device) == batch["eos"][:, None])


@needs("hits", "newlines", "eos", "token_ids")
@hooks(on_scored=read_lists)
@declare(group_size=2, columns=("items",), provides=("hits", "newlines", "eos"))
def by_rank(batch: Batch, *, num_items: int = 20, reward: str = "exp_inf", eps: float = 1e-4, ddof: int = 1) -> Tensor:
    """A_i,rank(t), normalised rank by rank; 0 for overflow and end tokens: [N, T]. Source: arXiv:2510.20150."""
    each = standardise(rank_rewards(batch["hits"].to(batch.dtype), reward=reward), batch.groups, eps=eps, ddof=ddof)
    with_overflow = torch.nn.functional.pad(each, (0, 1))
    return with_overflow.gather(1, token_ranks(batch, num_items)).masked_fill(_ends(batch), 0.0)


@needs("newlines", "eos")
def list_length(batch: Batch, advantages: Tensor, *, num_items: int, length_shaping: Mapping[str, float]) -> Tensor:
    """Plus `extra_token` on overflow, `end_of_list` or `early_stop` on the end token: [N, T]."""
    ranks, ends = token_ranks(batch), _ends(batch)
    last = torch.where(batch.mask, ranks, -1).amax(1, keepdim=True)
    out = advantages + length_shaping["extra_token"] * (ranks >= num_items).to(advantages.dtype)
    out = out + length_shaping["end_of_list"] * (ends & (last == num_items - 1)).to(advantages.dtype)
    return out + length_shaping["early_stop"] * (ends & (last < num_items - 1)).to(advantages.dtype)


@needs("old_logp", "newlines")
def rank_ratio(batch: Batch, *, num_items: int = 20) -> Tensor:
    """rho_it, the geometric mean of the token ratios of the token's rank: [N, T]. Source: arXiv:2510.20150."""
    bins, there = token_ranks(batch, num_items), batch.mask.to(batch.logp.dtype)
    zero = torch.zeros(batch.size, num_items + 1, dtype=batch.logp.dtype, device=batch.device)
    total, count = (zero.scatter_add(1, bins, x) for x in ((batch.logp - batch.old_logp) * there, there))
    return (total / count.clamp(min=1)).gather(1, bins).exp()


@needs("newlines")
def rank_mean(batch: Batch, *, num_items: int = 20) -> Tensor:
    """w_it = m_it / (N K tokens of its rank): [N, T]."""
    bins, there = token_ranks(batch, num_items), batch.loss_mask.to(batch.dtype)
    zero = torch.zeros(batch.size, num_items + 1, dtype=there.dtype, device=batch.device)
    return there / zero.scatter_add(1, bins, there).clamp(min=1).gather(1, bins) / (batch.size * num_items)


@recipe(
    title="Rank-GRPO: Training LLM-based Conversational Recommender Systems with Reinforcement Learning",
    paper="arXiv:2510.20150",
    idea="each rank of a list is an action with its own reward, baseline and ratio",
    confidence="exact",
    rewards=("ranking",),
)
def rank_grpo(
    *,
    num_items: Annotated[int, "[1, inf)"] = 20,
    reward: Annotated[str, ("exp_inf", "log_decay")] = "exp_inf",
    length_shaping: Mapping[str, float] | None = SHAPING,
    aggregation: Annotated[str, ("token", "rank-mean")] = "token",
    clip_low: Annotated[float, "[0, 1]"] = 0.06,
    clip_high: Annotated[float, "[0, inf)"] = 0.08,
    adv_eps: Annotated[float, "(0, inf)"] = 1e-4,
    std_ddof: Annotated[int, (0, 1)] = 1,
    items: str = "items",
    seen: str | None = None,
) -> Method:
    if length_shaping is not None and set(length_shaping) != set(SHAPING):
        raise MethodError(f"'rank-grpo': length_shaping must be None or give {', '.join(SHAPING)}")
    how = {"reward": reward, "eps": adv_eps, "ddof": std_ddof, "items": items, "seen": seen}
    return Method(
        advantage=use(by_rank, num_items=num_items, **how),
        credit=(use(list_length, num_items=num_items, length_shaping=length_shaping),) if length_shaping else (),
        ratio=use(rank_ratio, num_items=num_items),
        surrogate=use(surrogate.ppo_clip, low=clip_low, high=clip_high),
        aggregation=use(rank_mean, num_items=num_items) if aggregation == "rank-mean" else use(aggregations.token_mean),
    )
