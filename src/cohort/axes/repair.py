"""Repairs: the policy itself writes a failed rollout anew, shown the task, what it did, and what was wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cohort.axes.guidance import draw_groups, flattened, with_guidance
from cohort.reductions.pareto import dominates
from cohort.signals.calls import calls_valid
from cohort.signals.phases import Plan, phase_at
from cohort.types import Request, Rollout
from cohort.types.access import Sampler
from cohort.types.declare import declare

REPAIR = """{question}

An earlier attempt at this task failed:

{text}

What was wrong with it: {feedback}. Do the task anew, without this fault."""


def is_valid(rollout: Rollout, named: str | None) -> bool:
    """What the reward `named` says (above 0); without one, that the rollout ended, and all of its calls are sound."""
    return (
        rollout.finished and calls_valid(rollout) if named is None else bool((rollout.components.get(named) or 0) > 0)
    )


def scores_of(rollout: Rollout, objectives: Sequence[str]) -> Tensor:
    """[K] float64: the rollout's rewards of these names; 0 where one does not apply."""
    return torch.tensor([rollout.components.get(name) or 0.0 for name in objectives], dtype=torch.float64)


def accepted(failed: Tensor, candidates: Tensor, valid: Tensor, floors: Tensor) -> Tensor:
    """[n] bool: candidates [n, K] that are valid, reach all floors [K], and dominate the failure [K]."""
    return valid & (candidates >= floors).all(-1) & dominates(candidates, failed)


def transcript(rollout: Rollout) -> str:
    """What was said in a rollout, by whom where there was more than one turn."""
    messages = [message for turn in rollout.turns for message in turn.messages]
    if len(messages) < 2:
        return rollout.text
    return "\n".join(f"{message.get('role', '')}: {message.get('content') or ''}" for message in messages)


def faults(rollout: Rollout, valid: bool, scores: Tensor, objectives: Sequence[str], floors: Tensor) -> str:
    """What was wrong with it, in words, with what reward functions logged as `feedback`."""
    low = [
        f"{name} is {value:g}" for name, value, least in zip(objectives, scores, floors, strict=True) if value < least
    ]
    said = [] if rollout.logged.get("feedback") is None else [str(rollout.logged["feedback"])]
    return "; ".join([*([] if valid else ["it is not valid"]), *low, *said])


@declare(provides=("repair", "accepted"))
def repaired(
    requests: Sequence[Request],
    sampler: Sampler,
    *,
    plan: Plan,
    objectives: tuple[str, ...],
    valid: str | None,
    floors: tuple[float, ...],
    candidates: int = 4,
) -> list[Rollout]:
    """The requests as they are; in the phase "collect" each failure is also repaired `candidates` times. Repairs have the field
    `repair` 1, and `accepted` 1 where they pass. Source: arXiv:2605.11882."""
    groups = draw_groups(sampler, requests)
    plain = [r.replace(fields={**r.fields, "repair": 0.0, "accepted": 0.0}) for r in flattened(groups.values())]
    if phase_at(sampler.step, plan).name != "collect":
        return plain
    least = torch.tensor(floors, dtype=torch.float64).expand(len(objectives))
    failed: dict[int, Tensor] = {}
    asked: list[Request] = []
    for place, rollout in enumerate(plain):
        sound, scores = is_valid(rollout, valid), scores_of(rollout, objectives)
        if sound and bool((scores >= least).all()):
            continue
        failed[place] = scores
        why = faults(rollout, sound, scores, objectives, least).replace("{", "{{").replace("}", "}}")
        first = replace(rollout.request, history=(), turns=(), parent=None)
        for k in range(1, candidates + 1):
            template = REPAIR.replace("{feedback}", why)
            asked.append(with_guidance(first, template, transcript(rollout), sampler, salt=k, repairs=place))
    made = []
    for rollout in sampler.draw(asked) if asked else []:
        own = failed[rollout.request.meta["repairs"]]
        passes = torch.tensor([is_valid(rollout, valid)])
        keep = accepted(own, scores_of(rollout, objectives)[None], passes, least)
        made.append(rollout.replace(fields={**rollout.fields, "repair": 1.0, "accepted": float(keep[0])}))
    return [*plain, *made]
