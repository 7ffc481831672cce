"""DPPO: Divergence Proximal Policy Optimization (Rethinking the Trust Region in LLM Reinforcement Learning).

arXiv:2602.04879, code sail-sg/Stable-RL; verl's dppo_tv and dppo_kl, prime-rl's default loss. Confidence: exact; that the k
most likely tokens are those of the policy before the update, where the authors' come from the sampler, is ours.

A bound of the ratio is no bound of the divergence: a rare token that becomes five times as likely hardly moves the policy, a
frequent one that falls by a fifth moves it far. With p = exp(logp), o = exp(sampler_logp), a token that moves in the direction
of its advantage (A > 0: p > o; A <= 0: p < o) beyond a limit is dropped:

    TV = |p - o|      KL = o log(o / p) + (1 - o) log((1 - o) / (1 - p))                  of "this token" or not
    TV = 1/2 sum |p - o|,   KL = sum o log(o / p)            over the k most likely tokens and the rest ("topk-...")
    loss = -(1 / sum m) sum_it keep_it sg[min(p / o, ratio_cap)] A logp                   gradient="weight"
    loss = (1 / sum m) sum_it [ -keep_it A p / o + drift_coef (logp - log o)^2 ]          gradient="ratio" (prime-rl)

Defaults: limits 0.15 for TV (verl's script; prime-rl 0.2, KL 0.05), ratio_cap 20, drift_coef 1e-3.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation
from cohort.devices import to_host
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.types import Batch
from cohort.types.access import ModelAccess
from cohort.types.declare import declare, hooks, needs

KINDS = ("tv", "kl", "topk-tv", "topk-kl")
LIMIT, FLOOR = 20.0, 1e-12


def drawn_logp(batch: Batch, behaviour: str) -> Tensor:
    """log o [N, T]: the sampler's, or where no sampler drew the token the policy's own, without gradient."""
    if behaviour == "old":
        return batch.old_logp
    sampler = batch["sampler_logp"]
    return torch.where(sampler.isnan(), batch.logp.detach(), sampler)


def binary_divergence(logp: Tensor, old: Tensor, kind: str) -> Tensor:
    """TV or KL of the events "this token" and "another one", of log-probabilities of one shape."""
    p, o = logp.exp(), old.exp()
    if kind == "tv":
        return (p - o).abs()
    return o * (old - logp) + (1 - o) * ((1 - o + 1e-8) / (1 - p + 1e-8)).log()


def topk_divergence(logits: Tensor, ids: Tensor, logp: Tensor, kind: str) -> Tensor:
    """[...] TV or KL over k tokens and one bucket for the rest, of logits [..., V], ids and log-probabilities [..., k]."""
    now = (logits.gather(-1, ids) - torch.logsumexp(logits, -1, keepdim=True)).exp()
    p, o = (torch.cat([each, (1 - each.sum(-1, keepdim=True)).clamp(min=FLOOR)], -1) for each in (now, logp.exp()))
    return 0.5 * (p - o).abs().sum(-1) if kind == "tv" else (o * (o / p.clamp(min=FLOOR)).log()).sum(-1)


def _likely(batch: Batch, access: ModelAccess, *, divergence: str, k: int) -> Batch:
    """`topk_ids`, `topk_logp` [N, T, k] of the policy before the update."""
    if not divergence.startswith("topk"):
        return batch
    ids = torch.zeros(*batch.mask.shape, k, dtype=torch.int64, device=batch.device)
    logp = torch.zeros(ids.shape, dtype=batch.dtype, device=batch.device)
    found = {row: logits.log_softmax(-1).topk(k, -1) for row, logits in access.logits()}
    values, indices = (to_host(*each) for each in zip(*found.values(), strict=True)) if found else ((), ())
    for row, best, index in zip(found, values, indices, strict=True):
        ids[row, : len(index)], logp[row, : len(index)] = index, best.to(logp)
    return batch.with_tokens(topk_ids=ids, topk_logp=logp)


def kept(
    batch: Batch, advantages: Tensor, *, divergence: str, limit_low: float, limit_high: float, behaviour: str
) -> Tensor:
    """[N, T] bool: tokens that keep their loss."""
    logp, old = batch.logp.detach(), drawn_logp(batch, behaviour)
    if divergence.startswith("topk"):
        kind = divergence.removeprefix("topk-")
        far = topk_divergence(batch["logits"].detach(), batch["topk_ids"], batch["topk_logp"], kind)
    else:
        far = binary_divergence(logp, old, divergence)
    up, down = (advantages > 0) & (logp > old), (advantages <= 0) & (logp < old)
    return ~((up & (far > limit_high)) | (down & (far > limit_low)))


@needs(
    sampler_logp=lambda behaviour: behaviour == "sampler",
    old_logp=lambda behaviour: behaviour == "old",
    logits=lambda divergence: divergence.startswith("topk"),
    topk_ids=lambda divergence: divergence.startswith("topk"),
    topk_logp=lambda divergence: divergence.startswith("topk"),
)
@hooks(on_scored=_likely)
@declare(provides=("topk_ids", "topk_logp"))
def divergence_proximal(
    batch: Batch,
    ratio: Tensor,
    advantages: Tensor,
    *,
    divergence: str = "tv",
    limit_low: float = 0.15,
    limit_high: float = 0.15,
    ratio_cap: float | None = 20.0,
    drift_coef: float = 1e-3,
    gradient: str = "weight",
    behaviour: str = "sampler",
    k: int = 20,
) -> Tensor:
    """The loss of a token; `ratio` is not used, since it is taken to the policy that sampled: [N, T]. arXiv:2602.04879."""
    limits = {"limit_low": limit_low, "limit_high": limit_high}
    keep = kept(batch, advantages, divergence=divergence, behaviour=behaviour, **limits).to(batch.dtype)
    moved = batch.logp - drawn_logp(batch, behaviour)
    if gradient == "ratio":
        return -keep * advantages * moved.exp() + drift_coef * moved**2
    weight = moved.detach().clamp(-LIMIT, LIMIT).exp()
    weight = weight if ratio_cap is None else weight.clamp(max=ratio_cap)
    return -keep * weight * advantages * batch.logp


@recipe(
    title="Rethinking the Trust Region in LLM Reinforcement Learning",
    paper="arXiv:2602.04879",
    idea="a trust region by divergence: tokens that moved too far in probability are dropped",
    confidence="exact",
)
def dppo(
    *,
    divergence: Annotated[str, KINDS] = "tv",
    limit_low: Annotated[float, "[0, inf)"] = 0.15,
    limit_high: Annotated[float, "[0, inf)"] = 0.15,
    ratio_cap: Annotated[float | None, "(0, inf)"] = 20.0,
    gradient: Annotated[str, ("weight", "ratio")] = "weight",
    drift_coef: Annotated[float, "[0, inf)"] = 1e-3,
    behaviour: Annotated[str, ("sampler", "old")] = "sampler",
    k: Annotated[int, "[1, inf)"] = 20,
) -> Method:
    region = {"divergence": divergence, "limit_low": limit_low, "limit_high": limit_high, "behaviour": behaviour}
    how = {"ratio_cap": ratio_cap, "gradient": gradient, "drift_coef": drift_coef, "k": k}
    return Method(surrogate=use(divergence_proximal, **region, **how), aggregation=use(aggregation.token_mean))
