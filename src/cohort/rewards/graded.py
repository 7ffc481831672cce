"""Answers that are right by degrees: numbers by their relative error, counts, and the solutions of puzzles."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from cohort.errors import UsageError
from cohort.rewards.kinds import Kind, Values, plain
from cohort.rewards.verifiers import text_of, unanswered, unread
from cohort.signals.answers import final_answer, final_number, gold_number, gold_text, is_missing

LEVELS = 10


def relative_accuracy(said: Fraction | None, truth: Fraction, levels: int = LEVELS, *, strict: bool = False) -> float:
    """Mean relative accuracy: the share of levels theta with |said - truth| / |truth| <= 1 - theta.

    The levels are evenly spaced from 0.5 to 0.95.

    Args:
        levels: 10, in steps of 0.05, is the usual number; the released code of arXiv:2604.14144 has 11.
        strict: an error that equals 1 - theta does not count, as in arXiv:2505.19000.
    """
    if said is None:
        return 0.0
    if truth == 0:
        return float(said == 0)
    error = abs(said - truth) / abs(truth)
    thetas = [Fraction(1, 2) + Fraction(9, 20) * k / (levels - 1) for k in range(levels)]
    return sum(error < 1 - theta or (error == 1 - theta and not strict) for theta in thetas) / levels


def count_accuracy(said: Fraction | None, truth: Fraction) -> float:
    """1 for the right count, 0.3 if it is off by 1 at most, 0.1 by 2, else 0. Source: arXiv:2604.14144."""
    off = None if said is None else abs(said - truth)
    return 0.0 if off is None else 1.0 if off == 0 else 0.3 if off <= 1 else 0.1 if off <= 2 else 0.0


def order_accuracy(said: str, gold: Sequence[int]) -> float:
    """Share of the places of an order that are right; 0 if what is said is no order of 1 to n. Source: arXiv:2512.14944.

    Args:
        said: numbers with commas between them.
        gold: an order of 1 to n.
    """
    parts = re.sub(r"\s", "", said).split(",")
    if not all(re.fullmatch(r"[0-9]{1,9}", part) for part in parts):
        return 0.0
    order = [int(part) for part in parts]
    if sorted(order) != list(range(1, len(gold) + 1)):
        return 0.0
    return sum(a == b for a, b in zip(order, gold, strict=True)) / len(gold)


def as_order(text: str) -> list[int] | None:
    """The order of 1 to n, n > 1, that a text such as "1,3,4,2" is; None if it is none."""
    parts = re.sub(r"\s", "", text).split(",")
    if len(parts) < 2 or not all(re.fullmatch(r"[0-9]{1,9}", part) for part in parts):
        return None
    order = [int(part) for part in parts]
    return order if sorted(order) == list(range(1, len(order) + 1)) else None


def puzzle_accuracy(said: str, gold: str) -> float:
    """Of an order the share of its places that are right; any other solution must be the same, but for case and spaces."""
    order = as_order(gold)
    if order is not None:
        return order_accuracy(said, order)
    return float("".join(said.split()).casefold() == "".join(gold.split()).casefold())


def puzzle(completions: Sequence[Any], answer: Sequence[Any], **_: Any) -> Values:
    """From 0 to 1: how much of the final answer is the row's `answer`, the solution of a puzzle. None if it has none."""
    return [
        None if is_missing(gold) else puzzle_accuracy(final_answer(text_of(said)), gold_text(gold))
        for said, gold in zip(completions, answer, strict=True)
    ]


def count(completions: Sequence[Any], answer: Sequence[Any], **_: Any) -> Values:
    """1 if the number of the final answer is the row's `answer`, 0.3 if it is off by 1, 0.1 by 2. None if that is no number."""
    return _of_numbers(completions, answer, count_accuracy)


def _of_numbers(
    completions: Sequence[Any], answer: Sequence[Any], accuracy: Callable[[Fraction | None, Fraction], float]
) -> Values:
    out: Values = []
    for said, gold in zip(completions, answer, strict=True):
        truth = None if is_missing(gold) else gold_number(gold)
        out.append(None if truth is None else accuracy(final_number(text_of(said)), truth))
    return out


def relative(argument: str = "") -> Callable[..., Values]:
    """From 0 to 1: mean relative accuracy of the final answer's number.

    Args:
        argument: number of levels; 10 if it is empty, or "strict", where an error has to lie below a level's.

    Raises:
        UsageError: it is no whole number from 2 on.
    """
    strict = argument == "strict"
    argument = "" if strict else argument
    if argument and not (argument.isdecimal() and 2 <= int(argument) <= 1000):
        raise UsageError(
            f"reward 'relative:{argument}': write relative, relative:strict or relative:N, with N a number of levels, 2 to 1000"
        )
    levels = int(argument or LEVELS)

    def near(completions: Sequence[Any], answer: Sequence[Any], **_: Any) -> Values:
        return _of_numbers(
            completions, answer, lambda said, truth: relative_accuracy(said, truth, levels, strict=strict)
        )

    return near


KINDS = (
    Kind(
        "relative",
        ("relative", "relative:N", "relative:strict"),
        relative,
        verifies=True,
        columns=("answer",),
        inapplicable=unread,
    ),
    plain("count", {"": count}, verifies=True, columns=("answer",), inapplicable=unread),
    plain("puzzle", {"": puzzle}, verifies=True, columns=("answer",), inapplicable=unanswered),
)
