"""Sampling again in place of groups that a filter removed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Round = TypeVar("Round")


@dataclass(frozen=True)
class Refilled(Generic[Round]):
    """The result of several rounds of sampling.

    Attributes:
        rounds: the rounds that were drawn.
        flags: for each round, whether each of its groups was kept.
        chosen: (round, group) of the groups to train on, in order, at most `target`.
    """

    rounds: list[Round]
    flags: list[list[bool]]
    chosen: list[tuple[int, int]]


def refill(
    rounds: Iterable[Round],
    keep: Callable[[Round], Sequence[bool]],
    *,
    target: int,
    max_rounds: int,
    share: float = 1.0,
) -> Refilled[Round]:
    """Draw rounds until `target` groups are kept or `max_rounds` are drawn, and use the first `target` kept groups.

    Args:
        rounds: draws a round of groups each time it is advanced.
        keep: whether each group of a round is kept.
        share: of the target that suffices; below 1 the first of the other groups fill up to it.

    Source: dynamic sampling, arXiv:2503.14476; with a share, arXiv:2504.02546.
    """
    drawn: list[Round] = []
    flags: list[list[bool]] = []
    chosen: list[tuple[int, int]] = []
    others: list[tuple[int, int]] = []
    for each in rounds:
        drawn.append(each)
        flags.append([bool(flag) for flag in keep(each)])
        chosen += [(len(drawn) - 1, group) for group, flag in enumerate(flags[-1]) if flag]
        others += [(len(drawn) - 1, group) for group, flag in enumerate(flags[-1]) if not flag]
        # A product that is whole but for rounding stays whole.
        if len(chosen) >= share * target - 1e-9 or len(drawn) >= max_rounds:
            break
    return Refilled(drawn, flags, (chosen + (others if share < 1 else []))[:target])
