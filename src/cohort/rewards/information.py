"""What a text tells, and what it says of another: rewards that count words, and verdicts on the steps of a solution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cohort.errors import UsageError, shown
from cohort.rewards.kinds import Kind, Placed, Values, plain
from cohort.rewards.verifiers import text_of
from cohort.signals.answers import final_answer
from cohort.signals.first_errors import SOUND, read_step, step_reward
from cohort.signals.information import word_entropy


def entropy_of_words(completions: Sequence[Any], **_: Any) -> Values:
    """Entropy of the completion's words in bits; the more different words, and the more evenly, the more."""
    return [word_entropy(text_of(completion)) for completion in completions]


def first_error(completions: Sequence[Any], answer: Sequence[Any], steps: Sequence[Any], **_: Any) -> Values:
    """1 for a verdict that names the first wrong step of a solution, or -1 of a sound one; less the further it is off; -1 for
    one that calls a flawed solution sound or a sound one flawed, or names no step of it."""
    rows = zip(completions, answer, steps, strict=True)
    return [
        step_reward(read_step(final_answer(text_of(completion)).strip()), int(gold), len(parts))
        for completion, gold, parts in rows
    ]


def check_steps(_: str, rows: Sequence[Placed]) -> None:
    """Every row has the steps of a solution, and says which is the first wrong one.

    Raises:
        UsageError: one does not.
    """
    for where, row in rows:
        steps, gold = row["steps"], read_step(_plain(row))
        if not isinstance(steps, (list, tuple)) or not steps:
            raise UsageError(f"{where}: 'steps' must be a list of a solution's steps, not {shown(steps)}")
        if gold is None or not SOUND <= gold < len(steps):
            raise UsageError(
                f"{where}: 'answer' must say the first wrong step, 0 to {len(steps) - 1}, or -1 if all are right, not "
                f"{shown(row['answer'])}"
            )


def _plain(row: Mapping[str, Any]) -> str | None:
    value = row["answer"]
    return None if value is None or isinstance(value, bool) else str(value)


KINDS = (
    plain("word-entropy", {"": entropy_of_words}),
    Kind(
        "first-error",
        ("first-error",),
        {"": first_error}.get,
        verifies=True,
        columns=("answer", "steps"),
        check=check_steps,
    ),
)
