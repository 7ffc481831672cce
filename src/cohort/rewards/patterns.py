"""Rewards of completions that match a regular expression, each in limited time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cohort.errors import UsageError
from cohort.rewards.kinds import Function, Kind, Placed, Values
from cohort.rewards.verifiers import text_of
from cohort.signals.answers import final_answer
from cohort.signals.patterns import compiled, matches

# Texts of a call that were given up for their time, as the function logs their number.
LATE = "pattern_timeouts"


def _judged(patterns: Sequence[Any], texts: Sequence[str], whole: bool, log: Callable[..., None] | None) -> Values:
    found, late = matches(zip(patterns, texts, strict=True), whole=whole)
    if late and log is not None:
        log(LATE, len(late))
    return [float(each) for each in found]


def format_like(pattern: str, where: str = "format") -> Function:
    """1 if the completion matches the regular expression somewhere (`.` matches line breaks too); else 0.

    Raises:
        UsageError: it is none.
    """
    expression = compiled(pattern, where)

    def score(completions: Sequence[Any], log_metric: Callable[..., None] | None = None, **_: Any) -> Values:
        return _judged([expression] * len(completions), [text_of(c) for c in completions], False, log_metric)

    return score


def answer_like(pattern: str | None, where: str = "regex") -> Function:
    """1 if the final answer matches the regular expression as a whole; else 0. That of the row's `regex` where None is given.

    Raises:
        UsageError: it is none.
    """
    expression = None if pattern is None else compiled(pattern, where)

    def score(
        completions: Sequence[Any],
        regex: Sequence[Any] | None = None,
        log_metric: Callable[..., None] | None = None,
        **_: Any,
    ) -> Values:
        own = [None] * len(completions) if regex is None else regex
        patterns = [
            compiled(each, f"row {i}, column 'regex'") if expression is None else expression
            for i, each in enumerate(own, 1)
        ]
        return _judged(patterns, [final_answer(text_of(c)).strip() for c in completions], True, log_metric)

    return score


def _check(argument: str, rows: Sequence[Placed]) -> None:
    """Every row has a regular expression, where the reward brings none."""
    for where, row in rows if not argument else ():
        if row.get("regex") in (None, ""):
            raise UsageError(
                f"the reward 'regex' compares with the column 'regex', which {where} lacks (it has: {', '.join(row)}): add it, "
                "or write one for all rows, as regex:PATTERN"
            )
        compiled(row["regex"], f"{where}, column 'regex'")


KINDS = (
    Kind("format", ("format:REGEX",), lambda text: format_like(text, f"reward 'format:{text}'") if text else None),
    Kind(
        "regex",
        ("regex", "regex:REGEX"),
        lambda text: answer_like(text or None, f"reward 'regex:{text}'"),
        verifies=True,
        check=_check,
    ),
)
