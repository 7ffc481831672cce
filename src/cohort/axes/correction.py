"""Correction axis: from the policy that sampled to the policy that is trained. A function returns weights [N, T], by which
the token losses are multiplied, or keep [N, T] bool, the tokens that the loss is taken over.

Three policies: the sampler's (`sampler_logp`), the trainer's before the update (`old_logp`), and the current one (`logp`).
Everything follows from d = trainer - sampler, the log-ratio of a token. Several functions read the same batch: weights
multiply, and what one of them rejects is out. KL and other regularizers are not weighted.

Sources: truncated importance sampling, arXiv:1606.02647; masked, arXiv:2510.18855; the proximal policy apart from the
behaviour policy, arXiv:2110.00641; names and bounds after TRL and verl.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cohort.reductions.groups import token_mean, token_sum
from cohort.types import Batch
from cohort.types.declare import declare, needs

# Log-ratios are held within this before anything is exponentiated.
LIMIT = 20.0
LEVELS = ("token", "sequence", "geometric")
MODES = ("truncate", "mask")
PROXIMAL = ("trainer", "sampler")
STATISTICS = tuple(
    f"{over}_{of}"
    for over in ("token", "seq_sum", "seq_mean", "seq_max")
    for of in ("k1", "k2", "k3")
    if (over, of) != ("seq_max", "k1")
)
_ESTIMATORS = {"k1": lambda d: d, "k2": lambda d: 0.5 * d**2, "k3": lambda d: d.exp() - 1 - d}


def log_ratio(batch: Batch, *, proximal: str = "trainer") -> Tensor:
    """d_it = trainer - sampler, without gradient: [N, T], 0 at masked positions and where no sampler drew the token.

    Args:
        proximal: "trainer": old_logp stands for the trainer, fixed for the step; "sampler": the current policy does, since
            old_logp is the sampler's own.
    """
    trainer, sampler = (batch.old_logp if proximal == "trainer" else batch.logp).detach(), batch["sampler_logp"]
    # Nothing is corrected where no sampler drew the token.
    return torch.where(sampler.isnan(), 0.0, trainer - sampler)


@needs("sampler_logp", old_logp=lambda proximal: proximal == "trainer")
def importance_weight(
    batch: Batch,
    *,
    level: str = "token",
    mode: str = "truncate",
    low: float | None = None,
    high: float | None = 2.0,
    proximal: str = "trainer",
) -> Tensor:
    """w_it = min(max(r, low), high), or r where low <= r <= high and else 0, with r = exp(z) and z bounded to [-20, 20].

    Args:
        level: z is d_it ("token"), the sum of d over the rollout ("sequence"), or its mean ("geometric").
        mode: "truncate" or "mask".
        low, high: bounds of the ratio trainer / sampler; None leaves a side open.
        proximal: who is the trainer (see `log_ratio`).

    Returns:
        [N, T], without gradient, 0 at masked positions.

    Source: truncated, arXiv:1606.02647; masked, arXiv:2510.18855.
    """
    d = log_ratio(batch, proximal=proximal)
    if level != "token":
        d = (token_sum if level == "sequence" else token_mean)(d, batch.mask)[:, None].expand_as(d)
    ratio = d.clamp(-LIMIT, LIMIT).exp()
    bounded = ratio.clamp(low, high) if low is not None or high is not None else ratio
    if mode == "mask":
        bounded = torch.where(bounded == ratio, ratio, 0.0)
    return torch.where(batch.mask, bounded, 0.0)


@needs("sampler_logp", old_logp=lambda proximal: proximal == "trainer")
@declare(couples=True)
def normalized_importance_weight(
    batch: Batch,
    *,
    level: str = "token",
    mode: str = "truncate",
    low: float | None = None,
    high: float | None = 2.0,
    proximal: str = "trainer",
) -> Tensor:
    """`importance_weight` divided by its mean: over the tokens of the batch, or over its rollouts that have tokens, each
    counted once, where the level is not "token". A mean of 1e-8 or less leaves the weights as they are.

    Returns:
        [N, T], without gradient.
    """
    w = importance_weight(batch, level=level, mode=mode, low=low, high=high, proximal=proximal)
    some = batch.mask.any(1)
    counted = w[batch.mask] if level == "token" else w.amax(1)[some]
    mean = counted.mean() if counted.numel() else w.new_zeros(())
    return torch.where(mean > 1e-8, w / mean, w)


def statistic(d: Tensor, mask: Tensor, name: str) -> Tensor:
    """[N, T] a statistic of log-ratios: k1 = d, k2 = d^2 / 2 or k3 = e^d - 1 - d of each token, or its sum, mean or largest
    over the rollout, at every token of it. `name` is one of `STATISTICS`."""
    over, of = name.rsplit("_", 1)
    values = torch.where(mask, _ESTIMATORS[of](d.clamp(-LIMIT, LIMIT)), 0.0)
    if over == "token":
        return values
    # Neither k2 nor k3 is below 0, which a rollout without tokens gets.
    reduce = {"seq_sum": token_sum, "seq_mean": token_mean}.get(over)
    whole = values.amax(1) if reduce is None else reduce(values, mask)
    return whole[:, None].expand_as(d)


def satisfies(d: Tensor, mask: Tensor, criterion: Mapping[str, Any]) -> Tensor:
    """[N, T] bool: a criterion (`statistic`, `low`, `high`) holds. Bounds of k1 are bounds of the ratio trainer / sampler,
    where `low` is 1 / `high` unless it is given; k2 and k3 have an upper bound alone."""
    name, low, high = (criterion.get(key) for key in ("statistic", "low", "high"))
    found = statistic(d, mask, str(name))
    if str(name).endswith("k1"):
        low = 1 / high if low is None and high is not None else low
        low, high = (None if bound is None else math.log(bound) for bound in (low, high))
    keep = torch.ones_like(mask)
    keep = keep if low is None else keep & (found >= low)
    return keep if high is None else keep & (found <= high)


@needs("sampler_logp", old_logp=lambda proximal: proximal == "trainer")
@declare(couples=True)
def reject(batch: Batch, *, criteria: Sequence[Mapping[str, Any]], proximal: str = "trainer") -> Tensor:
    """Keep the tokens for which all criteria hold (see `satisfies`); the others leave the divisor of the loss as well.

    Args:
        criteria: mappings with `statistic` (one of `STATISTICS`), and `low`, `high` or both.

    Returns:
        [N, T] bool.

    Source: verl, algorithm.rollout_correction.
    """
    d = log_ratio(batch, proximal=proximal)
    keep = batch.mask
    for criterion in criteria:
        keep = keep & satisfies(d, batch.mask, criterion)
    return keep
