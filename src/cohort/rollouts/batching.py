"""From rollouts to a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cohort.types import Batch, Request, Rollout
from cohort.types.batch import label_of

# Fields that every batch of rollouts has; the loop adds those that come from scoring.
ALWAYS = frozenset(
    {
        "rewards",
        "reward_components",
        "accuracy",
        "row",
        "agent",
        "episode",
        "truncated",
        "token_ids",
        "sampler_logp",
        "old_entropy",
        "version",
        "turn",
        "turn_rewards",
    }
)


def check_groups(rollouts: Sequence[Rollout], requests: Sequence[Request]) -> None:
    """Rollouts belong to the prompts that were asked for, and one identity means one text.

    Raises:
        RuntimeError: rollouts of different prompts would be compared with each other.
    """
    asked = {request.prompt.id: request.prompt.text for request in requests}
    for rollout in rollouts:
        if asked.get(rollout.prompt.id) != rollout.prompt.text:
            raise RuntimeError(
                f"a rollout of the prompt {rollout.prompt.text!r} came with the identity {rollout.prompt.id}, which "
                f"belongs to {asked.get(rollout.prompt.id)!r}: its group would be wrong"
            )


def make_batch(rollouts: Sequence[Rollout], rows: Mapping[str, int], *, extra: Iterable[str] = ()) -> Batch:
    """Rollouts as tensors on the CPU.

    Args:
        rows: prompt id -> row of the data set.
        extra: names in `Rollout.fields` to take over: a number of each rollout, or one of each of its tokens.
    """
    width = max((len(r.tokens) for r in rollouts), default=0) or 1
    lists = {name for r in rollouts for name, value in r.fields.items() if not isinstance(value, (int, float))}
    groups: dict[Hashable, int] = {}
    episodes: dict[Hashable, int] = {}

    def number(known: dict[Hashable, int], key: Hashable) -> int:
        return known.setdefault(key, len(known))

    def padded(values: Callable[[Rollout], Sequence[float]], dtype: torch.dtype) -> Tensor:
        out = torch.zeros(len(rollouts), width, dtype=dtype)
        for i, rollout in enumerate(rollouts):
            row = values(rollout)
            out[i, : len(row)] = torch.tensor(row, dtype=dtype)
        return out

    def per_rollout(values: Iterable[float], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(list(values), dtype=dtype)

    names = list(dict.fromkeys(name for r in rollouts for name in r.components))
    components = [[math.nan if (v := r.components.get(n)) is None else v for n in names] for r in rollouts]
    return Batch(
        mask=padded(lambda r: r.mask, torch.bool),
        tokens={
            "token_ids": padded(lambda r: r.tokens, torch.int64),
            "sampler_logp": padded(lambda r: r.sampler_logp, torch.float32),
            "old_entropy": padded(lambda r: r.sampler_entropy, torch.float32),
            "version": padded(lambda r: r.versions, torch.int64),
            "turn": padded(_turns, torch.int64),
            "turn_rewards": padded(_turn_rewards, torch.float32),
            **{name: padded(partial(_numbers, name), torch.float32) for name in extra if name in lists},
        },
        rollouts={
            # Agents of an episode are compared each with itself.
            "group": per_rollout((number(groups, (r.prompt.id, r.agent)) for r in rollouts), torch.int64),
            "agent": per_rollout((label_of(r.agent) for r in rollouts), torch.int64),
            "episode": per_rollout((number(episodes, r.episode or i) for i, r in enumerate(rollouts)), torch.int64),
            "row": per_rollout((rows.get(r.prompt.id, -1) for r in rollouts), torch.int64),
            "rewards": per_rollout(r.reward for r in rollouts),
            "reward_components": torch.tensor(components, dtype=torch.float32).reshape(len(rollouts), len(names)),
            "accuracy": per_rollout(0.0 if math.isnan(r.accuracy) else r.accuracy for r in rollouts),
            "truncated": per_rollout(float(not (r.finished or r.waits)) for r in rollouts),
            # 1 and -1: the better and the worse of stored completions; 0: drawn.
            "preference": per_rollout(_number(r.fields.get("preference", 0.0)) for r in rollouts),
            **{name: per_rollout(_number(r.fields.get(name)) for r in rollouts) for name in extra if name not in lists},
        },
    )


def _turns(rollout: Rollout) -> list[int]:
    """Of each token, the number of the turn that it stands in, or behind, from 0."""
    out = [0] * len(rollout.tokens)
    for number, turn in enumerate(rollout.turns[1:], 1):
        out[turn.start :] = [number] * (len(out) - turn.start)
    return out


def _turn_rewards(rollout: Rollout) -> list[float]:
    """What its environment gave each turn, at the last token of it that the policy chose; 0 elsewhere, and where the turn
    was cut."""
    out = [0.0] * len(rollout.tokens)
    for turn in rollout.turns:
        if turn.reward and turn.end <= len(out):
            last = next((at for at in reversed(range(turn.start, turn.end)) if rollout.mask[at]), None)
            if last is not None:
                out[last] = float(turn.reward)
    return out


def _number(value: Any) -> float:
    return math.nan if value is None else value


def _numbers(name: str, rollout: Rollout) -> Sequence[float]:
    found = rollout.fields.get(name)
    return [math.nan] * len(rollout.tokens) if not isinstance(found, Sequence) else found
