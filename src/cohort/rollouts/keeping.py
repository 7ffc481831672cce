"""Rollouts as plain values, for a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from cohort.types import Context, Prompt, Request, Rollout, Segment, Turn
from cohort.types.support import Support

# What says how a rollout came out, as it is.
OUTCOME = (
    *("status", "text", "id", "error", "components", "reward", "accuracy", "failed", "fields", "logged"),
    *("episode", "end", "opening", "waits", "auxiliary"),
)


def stored(rollout: Rollout) -> dict[str, Any]:
    """A rollout as a dict of tensors and plain values, its prompt by identity."""
    request = rollout.request
    return {
        "prompt": rollout.prompt.id,
        "context": request.context.state(),
        "seed": request.seed,
        "environment_seed": request.environment_seed,
        "parent": request.parent,
        "agent": request.agent,
        "meta": dict(request.meta),
        "history": len(request.history),
        "max_new_tokens": request.max_new_tokens,
        "segments": [
            {
                "actions": torch.tensor(segment.actions, dtype=torch.int32),
                "writer": segment.writer,
                "logp": _numbers(segment.logp),
                "entropy": _numbers(segment.entropy),
                "support": None if segment.support is None else segment.support.state(),
                "version": segment.version,
            }
            for segment in rollout.segments
        ],
        "turns": [
            {**vars(turn), "context": None if turn.context is None else turn.context.state()} for turn in rollout.turns
        ],
        **{name: getattr(rollout, name) for name in OUTCOME},
    }


def restored(state: Mapping[str, Any], prompt: Prompt) -> Rollout:
    """The rollout of a prompt that `stored` gave."""
    segments = tuple(
        Segment(
            tuple(each["actions"].tolist()),
            each["writer"],
            None if each["logp"] is None else tuple(each["logp"].tolist()),
            None if each["entropy"] is None else tuple(each["entropy"].tolist()),
            None if each["support"] is None else Support.of_state(each["support"]),
            each["version"],
        )
        for each in state["segments"]
    )
    turns = tuple(map(_turn, state["turns"]))
    request = Request(
        prompt,
        Context.of_state(state["context"]),
        state["seed"],
        state["max_new_tokens"],
        environment_seed=state["environment_seed"],
        history=segments[: state.get("history", 0)],
        parent=state["parent"],
        agent=state.get("agent", ""),
        meta=state.get("meta", {}),
    )
    # What came since an older checkpoint was written is as it is by default.
    return Rollout(request, segments, turns=turns, **{name: state[name] for name in OUTCOME if name in state})


def _turn(state: Mapping[str, Any]) -> Turn:
    # Earlier versions knew no contexts of turns.
    context = state.get("context")
    return Turn(**{**state, "context": None if context is None else Context.of_state(context)})


def _numbers(values: tuple[float, ...] | None) -> torch.Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float64)
