"""Sampling axis: how a rollout is drawn. A function takes requests and a sampler and returns rollouts, not yet scored.

Thoughts that are cut at budgets and answered: see `cohort.axes.summaries`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cohort.errors import UsageError
from cohort.signals.entropy import EntropyTemperature, entropy_scale
from cohort.types import Batch, Request, Rollout, StepInfo
from cohort.types.access import Sampler
from cohort.types.declare import State, declare, hooks
from cohort.types.step import generation_budget


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


@declare(provides=("finished", "window_start"), waits=True)
def windowed(
    requests: Sequence[Request], sampler: Sampler, *, info: StepInfo, window: int | None = None
) -> list[Rollout]:
    """At most `window` tokens (None: a quarter of a rollout's limit) for every request; what is not over then waits.

    Fields: `finished`, 0 where a rollout waits and 1 where it ended, also at its limit; `window_start`, the place of the first
    token that was drawn now.

    Raises:
        UsageError: an environment answers.
    """
    most = -(-generation_budget(info) // 4) if window is None else window
    rollouts = sampler.generate([replace(each, max_new_tokens=min(each.max_new_tokens, most)) for each in requests])
    out = []
    for request, rollout in zip(requests, rollouts, strict=True):
        # A turn that was answered though the rollout is cut: the episode would have had another one.
        goes_on = rollout.status == "truncated" and any(turn.reward is not None for turn in rollout.turns)
        if len(rollout.turns) > 1 or goes_on or rollout.others:
            raise UsageError(
                "rollouts of several turns are not drawn in windows: take a method that draws whole episodes"
            )
        start, drawn = len(request.prefix), len(rollout.tokens) - len(request.prefix)
        room = request.max_new_tokens
        if sampler.context_length is not None:
            room = min(room, sampler.context_length - len(request.context) - start)
        waits = rollout.status == "truncated" and drawn == most < room
        fields = {**rollout.fields, "finished": float(not waits), "window_start": float(start)}
        out.append(rollout.replace(fields=fields, waits=waits))
    return out


def thought_length(rollout: Rollout, end_of_thinking: tuple[int, ...]) -> int:
    """Number of tokens before the end of thinking; all of them where the policy never ends it."""
    width, tokens = len(end_of_thinking), rollout.tokens
    ends = (i for i in range(len(tokens) - width + 1) if tuple(tokens[i : i + width]) == end_of_thinking)
    return next(ends, len(tokens))


def stop_bonus(trailing: int | None, *, symbol_reward: float, trailing_penalty: float) -> float:
    """What a stop string with so many characters behind it is worth; None: there is none."""
    return 0.0 if trailing is None else symbol_reward - trailing_penalty * trailing


@declare(provides=("stop_bonus",))
def until_stop(
    requests: Sequence[Request],
    sampler: Sampler,
    *,
    stop: tuple[str, ...] = (),
    symbol_reward: float = 1e-3,
    trailing_penalty: float = 1e-6,
) -> list[Rollout]:
    """Rollouts whose texts end before the first stop string, with the field `stop_bonus`."""
    out = []
    for rollout in sampler.generate(requests):
        start, trailing = len(str(rollout.request.meta.get("start", ""))), None
        text, hits = rollout.text, [(rollout.text.find(each, start), each) for each in stop]
        if found := [hit for hit in hits if hit[0] >= 0]:
            at, symbol = min(found)
            text, trailing = rollout.text[:at], len(rollout.text) - at - len(symbol)
        elif rollout.finished and rollout.tokens and rollout.tokens[-1] not in sampler.stop_ids:
            trailing = 0
        bonus = stop_bonus(trailing, symbol_reward=symbol_reward, trailing_penalty=trailing_penalty)
        out.append(rollout.replace(text=text, fields={**rollout.fields, "stop_bonus": bonus}))
    return out
