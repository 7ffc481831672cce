"""SPO: Segment Policy Optimization: Effective Segment-Level Credit Assignment in RL for LLMs. arXiv:2505.23564.

Code AIFrameResearch/SPO. Confidence: exact (official code).

Chain: a rollout is cut before every m-th uncertain token (probability below p0); V(c) is the mean reward of K continuations
from the cut; a token's advantage is what its segment gained:

    A_t = V(next cut) - V(last cut),  R - V(last cut) after the last one,  0 before the first and where the policy was sure
    loss = sum_t M_t l_t / sum_t M_t   over the whole batch,  M_t = 1[pi_old(o_t) < p0],  l the PPO clip

Over its segments A telescopes to R - V(first cut). Tree (`axes/trees.py`): a prompt's group_size rollouts are cut after
segment_tokens tokens, and each goes on branching[0] times, and so on; V(node) = mean V(children), A(edge) = V(child) -
V(parent). An edge is trained once, in one of the paths through it; edges with A = 0 are not. At most edges_per_prompt edges
of a prompt, drawn at random, are trained in a step; the others wait until they are edge_age steps old. (The code makes a
sample of each edge: the loss is the same, and here rewards and lengths are those of whole rollouts.)

Whitening (on in the released configurations) takes mean and variance over the uncertain tokens and gives all tokens a value.
Defaults: p0 0.9, m 5, K 9, segments of 30 tokens (GSM8K; MATH 600), branching 6-6-6 with group_size 6, 32 edges, 8 steps. K
continuations a cut are what the chain costs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation, trees
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.reductions.whitening import whitened
from cohort.types import Batch, Request, Rollout
from cohort.types.access import Sampler
from cohort.types.declare import declare, needs


def cuts(old_logp: Tensor, mask: Tensor, *, interval: int, prob_threshold: float) -> Tensor:
    """[N, T] bool: tokens that a cut stands just before, every `interval`-th uncertain one from the first on."""
    unsure = mask & (old_logp < math.log(prob_threshold))
    return unsure & ((unsure.cumsum(1) - 1) % interval == 0)


@declare(provides=("cut_value",))
def valued_cuts(
    requests: Sequence[Request],
    sampler: Sampler,
    *,
    interval: int = 5,
    prob_threshold: float = 0.9,
    continuations: int = 9,
) -> list[Rollout]:
    """Rollouts with `cut_value` [L]: the mean reward of continuations from just before a token; NaN where no cut is."""
    paths = sampler.generate(requests)
    cut: list[Rollout] = []
    places: list[int] = []
    for path in paths:
        logp, mask = torch.tensor([path.sampler_logp]), torch.tensor([path.mask], dtype=torch.bool)
        at = cuts(logp, mask, interval=interval, prob_threshold=prob_threshold)[0].nonzero()[:, 0].tolist()
        cut, places = cut + [path] * len(at), places + at
    found: dict[tuple[str | None, int], list[float]] = {}
    for end in sampler.grade(sampler.extend(cut, places, continuations)):
        found.setdefault((end.parent, len(end.request.prefix)), []).append(end.reward)
    out = []
    for path in paths:
        rewards = [found.get((path.id, t), []) for t in range(len(path.tokens))]
        values = [sum(each) / len(each) if each else math.nan for each in rewards]
        out.append(path.replace(fields={**path.fields, "cut_value": values}))
    return out


def segment_gains(batch: Batch, *, prob_threshold: float) -> Tensor:
    """[N, T] value gained by each token's segment; 0 before the first cut and at tokens that the policy was sure of."""
    value, width = batch["cut_value"], batch.mask.shape[1]
    marked = batch.mask & ~value.isnan()
    value = torch.where(marked, value, torch.zeros_like(value))
    place = torch.arange(width, device=batch.device).expand_as(value)
    last = torch.where(marked, place, -1).cummax(1).values
    following = torch.where(marked, place, width).flip(1).cummin(1).values.flip(1)
    following = torch.cat([following[:, 1:], torch.full_like(following[:, :1], width)], 1)
    after = torch.where(following < width, value.gather(1, following.clamp(max=width - 1)), batch.rewards[:, None])
    gain = after - value.gather(1, last.clamp(min=0))
    sure = batch.old_logp > math.log(prob_threshold)
    return torch.where(batch.mask & (last >= 0) & ~sure, gain, torch.zeros_like(gain))


@needs("cut_value", "old_logp")
def segments(batch: Batch, *, prob_threshold: float = 0.9, whiten_advantages: bool = True) -> Batch:
    """A_t = V(next cut) - V(last cut) on uncertain tokens, which alone are trained. Source: section 4, arXiv:2505.23564."""
    gain = segment_gains(batch, prob_threshold=prob_threshold)
    unsure = batch.mask & (batch.old_logp < math.log(prob_threshold))
    gain = whitened(gain, unsure, batch.mask) if whiten_advantages else gain
    return batch.replace(advantages=gain, loss_mask=unsure)


@recipe(
    title="Segment Policy Optimization: Effective Segment-Level Credit Assignment in RL for Large Language Models",
    paper="arXiv:2505.23564",
    idea="the value of each segment by rolling on from its ends; only uncertain tokens are trained",
    confidence="exact",
)
def spo_segment(
    *,
    variant: Annotated[str, ("chain", "tree")] = "chain",
    interval: Annotated[int, "[1, inf)"] = 5,
    prob_threshold: Annotated[float, "(0, 1)"] = 0.9,
    continuations: Annotated[int, "[1, inf)"] = 9,
    whiten_advantages: Annotated[bool, (True, False)] = True,
    branching: tuple[int, ...] = (6, 6),
    segment_tokens: Annotated[int, "[1, inf)"] = 30,
    edges_per_prompt: Annotated[int, "[1, inf)"] = 32,
    edge_age: Annotated[int, "[1, inf)"] = 8,
) -> Method:
    if not branching or min(branching) < 1:
        raise MethodError(f"'spo-segment': branching={branching!r} must be how often the nodes of each level go on")
    loss = use(aggregation.token_mean)
    how = {"prob_threshold": prob_threshold, "whiten_advantages": whiten_advantages}
    if variant == "tree":
        most = {"edges_per_prompt": edges_per_prompt}
        draw = use(trees.grown, branching=tuple(branching), segment_tokens=segment_tokens, **most)
        return Method(sampling=draw, advantage=use(trees.edges, **how, **most, edge_age=edge_age), aggregation=loss)
    draw = use(valued_cuts, interval=interval, prob_threshold=prob_threshold, continuations=continuations)
    return Method(sampling=draw, advantage=use(segments, **how), aggregation=loss)
