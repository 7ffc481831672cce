"""Questions with lettered options. Source: arXiv:2505.13886."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cohort.data.generators.task import ANSWER

MOST = 8


@dataclass(frozen=True)
class Choice:
    """Options as they are shown, and the place of the right one.

    Attributes:
        shown: their texts.
        place: of the right one, from 0.
    """

    shown: tuple[str, ...]
    place: int

    @property
    def letter(self) -> str:
        return chr(ord("A") + self.place)

    @property
    def number(self) -> int:
        return self.place + 1

    @property
    def text(self) -> str:
        """A line an option, and how to answer."""
        lines = [f"{chr(ord('A') + i)}: {option}" for i, option in enumerate(self.shown)]
        return "\n".join([*lines, "", f"Answer with the letter of the right option. {ANSWER}"])


def arrange(correct: str, wrong: Sequence[str], order: Sequence[int]) -> Choice:
    """Options in an order: at place i stands item order[i] of (correct, *wrong).

    Raises:
        ValueError: a wrong option is the right one, or stands there twice.
    """
    items = (correct, *wrong)
    if len(set(items)) < len(items):
        raise ValueError(f"options must differ, unlike {', '.join(items)}")
    return Choice(tuple(items[i] for i in order), list(order).index(0))


def choose(rng: random.Random, correct: str, wrong: Iterable[str], most: int = MOST) -> Choice:
    """The right option among at most `most - 1` wrong ones, shuffled.

    Args:
        wrong: texts from which they are drawn; those that are the right one are left out.
    """
    # In a fixed order first: that of a set differs from process to process.
    pool = sorted(set(wrong) - {correct})
    drawn = rng.sample(pool, min(most - 1, len(pool)))
    order = list(range(len(drawn) + 1))
    rng.shuffle(order)
    return arrange(correct, drawn, order)


def numbers_near(value: int, least: int = 0, reach: int = MOST) -> list[str]:
    """Whole numbers around one, as texts."""
    return [str(other) for other in range(max(least, value - reach), value + reach + 1)]
