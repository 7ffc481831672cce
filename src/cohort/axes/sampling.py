"""Sampling axis: how a rollout is drawn. A function takes requests and a sampler and returns rollouts, not yet scored.

Thoughts that are cut at budgets and answered: see `cohort.axes.summaries`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cohort.signals.entropy import EntropyTemperature, entropy_scale
from cohort.types import Batch, Request, Rollout
from cohort.types.access import Sampler
from cohort.types.declare import State, declare, hooks


def independent(requests: Sequence[Request], sampler: Sampler) -> list[Rollout]:
    """Every rollout drawn by itself from its context."""
    return sampler.generate(requests)


def _remember_entropies(batch: Batch, state: State, *, entropy_pivot: float = 0.8) -> State:
    scale = entropy_scale(batch["old_entropy"], batch.mask, pivot=entropy_pivot)
    return state if scale is None else {"scale": [float(x) for x in scale]}


@hooks(init=lambda: {"scale": None}, on_rollouts=_remember_entropies)
@declare(processes=True)
def by_entropy(
    requests: Sequence[Request], sampler: Sampler, state: State, *, temperature_tau: float = 0.05
) -> list[Rollout]:
    """T = T0 (1 + tau clip(h, -1, 1)) at every token, h its entropy on the scale of the step before (see `signals.entropy`).

    The first step has no scale and draws at T0, the temperature of the run, at which entropies are taken throughout.
    """
    if state["scale"] is None:
        return sampler.generate(requests)
    heat = EntropyTemperature(temperature_tau, *state["scale"])
    return sampler.generate([replace(r, processor=heat) for r in requests])


def thought_length(rollout: Rollout, end_of_thinking: tuple[int, ...]) -> int:
    """Number of tokens before the end of thinking; all of them where the policy never ends it."""
    width, tokens = len(end_of_thinking), rollout.tokens
    ends = (i for i in range(len(tokens) - width + 1) if tuple(tokens[i : i + width]) == end_of_thinking)
    return next(ends, len(tokens))
