"""M-GRPO: Multi-Agent Deep Research: Training Multi-Agent Systems with M-GRPO. arXiv:2511.13288 (code AQ-MedAI/MrlX).

Confidence: reconstructed: coefficients of the rewards, the deviation (population), over what sub-agents are normalised, and how
alignment picks.

    R_M  = alpha_1 format + alpha_2 correct                         0 where the format is invalid
    R_S  = beta_1 format + beta_2 correct of the main agent + beta_3 expert    likewise; of a malformed main answer correct is 0
    A    = (R - mean) / (std + eps)                 over the rollouts of one agent for one question, each counted as many times
                                                    as it stands in slots; 0 if that is less than 2
    loss = sum over agents of: mean over its rollouts, so counted, of the token mean of -min(rho A, clip(rho) A)

A main agent calls sub-agents, d times in a rollout; each call is a rollout of its own (`Observation.conversation`). Calls are
aligned to D slots: of more than D, D at random; of fewer, random repeats. R is made of the rewards that `format`, `correct` (of
the main agent) and `expert` name; without them it is the run's. Agents may share a policy or have one each.

Defaults: alpha (0.1, 0.9), beta (0.1, 0.9, 0), clip 0.2 and 0.28 (released); D, not known, is 4; slots=None counts calls once.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from cohort.axes import aggregation, surrogate
from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_flat, group_order, group_sum
from cohort.seeds import generator
from cohort.signals.components import component
from cohort.types import Batch, Groups, StepInfo
from cohort.types.batch import label_of
from cohort.types.declare import declare, needs


def _main(batch: Batch, main: str) -> Tensor:
    """[N] bool: rollouts of the main agent, or of one without a name."""
    return (batch.agent == label_of(main)) | (batch.agent == 0)


@needs("reward_components", "agent", "episode")
@declare(components=("format", "correct", "expert"))
def hierarchical(
    batch: Batch,
    *,
    alpha: tuple[float, float],
    beta: tuple[float, float, float],
    main: str,
    format: str,
    correct: str,
    expert: str | None,
    info: StepInfo,
) -> Tensor:
    """R_M and R_S: [N]. Source: arXiv:2511.13288; the released code has beta = (0.1, 0.9, 0)."""
    lead = _main(batch, main)
    valid, right = (component(batch, name, info).to(batch.dtype) for name in (format, correct))
    judged = torch.zeros_like(right) if expert is None else component(batch, expert, info).to(batch.dtype)
    whole, index = torch.unique(batch.episode, return_inverse=True)
    answered = torch.zeros(len(whole), dtype=batch.dtype, device=batch.device)
    answered = answered.index_add(0, index, torch.where(lead & (valid > 0), right, 0.0))
    own = alpha[0] * valid + alpha[1] * right
    called = beta[0] * valid + beta[1] * answered[index] + beta[2] * judged
    return torch.where(valid > 0, torch.where(lead, own, called), 0.0)


def align(calls: Tensor, keys: Tensor, slots: int) -> Tensor:
    """Which call stands in each slot: [E, slots], -1 where there was none. Source: arXiv:2511.13288.

    Args:
        calls: [E] int64, numbers of calls.
        keys: [E, K] in [0, 1), K at least as large as every number of calls and `slots`.
    """
    place = torch.arange(keys.shape[1], device=keys.device)
    sampled = torch.where(place < calls[:, None], keys, torch.inf).argsort(dim=1, stable=True)[:, :slots].sort(1).values
    place = place[:slots]
    repeated = torch.where(place < calls[:, None], place, (keys[:, :slots] * calls[:, None]).long())
    aligned = torch.where(calls[:, None] >= slots, sampled, repeated)
    return torch.where(calls[:, None] > 0, aligned, -1)


def slot_counts(batch: Batch, *, slots: int, main: str, info: StepInfo) -> Tensor:
    """[N] int64: in how many slots each rollout of a sub-agent stands; 1 of the main agent's. Source: arXiv:2511.13288."""
    calls, index = torch.unique(torch.stack([batch.episode, batch.agent], 1), dim=0, return_inverse=True)
    count = torch.bincount(index, minlength=len(calls))
    keys = torch.rand(len(calls), max(slots, int(count.max())), generator=generator(info.seed, info.step + 1, "slots"))
    aligned = align(count, keys.to(batch.device), slots)
    _, nth, _ = group_order(torch.zeros_like(index), Groups(index, torch.arange(len(calls), device=batch.device)))
    copies = (aligned[index] == nth[:, None]).sum(1)
    return torch.where(_main(batch, main), torch.ones_like(copies), copies)


@needs("agent", "episode")
@declare(group_size=2)
def aligned_zscore(batch: Batch, *, slots: int | None, main: str, eps: float, info: StepInfo) -> Batch:
    """`advantages` [N, T] and `copies` [N]: standardised over slots. Source: arXiv:2511.13288."""
    if "copies" not in batch and slots is not None:
        batch = batch.with_rollouts(copies=slot_counts(batch, slots=slots, main=main, info=info))
    copies = batch["copies"].to(batch.dtype) if "copies" in batch else torch.ones_like(batch.rewards)
    some = (copies > 0).nonzero()[:, 0]
    index, times, rewards = batch.groups.index[some], copies[some], batch.rewards[some]
    groups = Groups(index, batch.groups.labels)
    count = group_sum(times, groups)[index]
    apart = rewards - group_sum(times * rewards, groups)[index] / count
    std = (group_sum(times * apart**2, groups)[index] / count).sqrt()
    scaled = torch.where(group_flat(rewards, groups)[index] | (count < 2), 0.0, apart / (std + eps))
    advantages = torch.zeros_like(batch.rewards).index_put((some,), scaled)
    return batch.with_rollouts(outcome_advantage=advantages).replace(
        advantages=advantages[:, None].expand(batch.mask.shape)
    )


@recipe(
    title="Multi-Agent Deep Research: Training Multi-Agent Systems with M-GRPO",
    paper="arXiv:2511.13288",
    idea="a main agent and those it calls are compared each with itself; calls are aligned to slots",
    confidence="reconstructed: coefficients of the rewards, the deviation, what sub-agents are normalised over, alignment",
)
def m_grpo(
    *,
    main: str = "main",
    format: str | None = None,
    correct: str | None = None,
    expert: str | None = None,
    alpha: tuple[float, float] = (0.1, 0.9),
    beta: tuple[float, float, float] = (0.1, 0.9, 0.0),
    slots: Annotated[int | None, "[1, inf)"] = 4,
    adv_eps: Annotated[float, "(0, inf)"] = 1e-6,
    clip_low: Annotated[float, "[0, 1]"] = 0.2,
    clip_high: Annotated[float, "[0, inf)"] = 0.28,
) -> Method:
    if (format is None) != (correct is None) or (expert is not None and format is None):
        raise MethodError("'m-grpo': name the rewards format and correct, and expert if there is one, or none of them")
    parts = {"alpha": alpha, "beta": beta, "main": main, "format": format, "correct": correct, "expert": expert}
    return Method(
        shaping=(use(hierarchical, **parts),) if format is not None else (),
        advantage=use(aligned_zscore, slots=slots, main=main, eps=adv_eps),
        surrogate=use(surrogate.ppo_clip, low=clip_low, high=clip_high),
        aggregation=use(aggregation.agent_mean),
    )
