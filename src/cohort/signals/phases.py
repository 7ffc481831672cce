"""Phases that a run goes through in turns, by the number of its step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# (name, steps) of phases that follow each other.
Plan = Sequence[tuple[str, int]]


class Phase(NamedTuple):
    """Where a step stands.

    Attributes:
        round: how often all phases were gone through before.
        name: of the phase.
        place: steps of the phase before this one.
        last: True in its last step.
    """

    round: int
    name: str
    place: int
    last: bool


def phase_at(step: int, plan: Plan) -> Phase:
    """The phase after so many steps, where phases of names and steps (at least one in all) follow each other in rounds."""
    round_, left = divmod(step, sum(steps for _, steps in plan))
    for name, steps in plan:
        if left < steps:
            return Phase(round_, name, left, left == steps - 1)
        left -= steps
    raise AssertionError("a remainder lies within the plan")
