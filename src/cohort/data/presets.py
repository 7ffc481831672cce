"""Field names and answer formats of well-known data sets, recognised by their columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cohort.data.rows import Row
from cohort.signals.numbers import number, plain

_DIGITS = re.compile(r"[-+]?[\d,]+(?:\.\d*)?")


@dataclass(frozen=True)
class Preset:
    """How a data set's rows become prompts.

    Attributes:
        name: of the data set.
        fits: whether a row has its columns.
        convert: row -> the columns `prompt`, `answer` (and `solution`, where there is one), added to the row.
    """

    name: str
    fits: Callable[[Row], bool]
    convert: Callable[[Row], dict[str, Any]]


def plain_number(value: Any) -> str:
    """An answer as text: 27.0 -> "27", "025" -> "25"; formulas and other texts as they are."""
    text = str(value).strip()
    found = number(text) if isinstance(value, float) or _DIGITS.fullmatch(text) else None
    return text if found is None else plain(found)


def _gsm8k(row: Row) -> dict[str, Any]:
    return {"prompt": row["question"], "solution": row["answer"], "answer": row["answer"].rsplit("####", 1)[1].strip()}


def _svamp(row: Row) -> dict[str, Any]:
    body = row["Body"].strip()
    body = body if body.endswith((".", "?", "!", ",")) else body + "."
    return {"prompt": f"{body} {row['Question'].strip()}", "answer": plain_number(row["Answer"])}


def _problem(row: Row) -> dict[str, Any]:
    return {"prompt": row["problem"], "answer": plain_number(row["answer"])}


def _texts(row: Row, *names: str) -> bool:
    return all(isinstance(row.get(name), str) for name in names)


# Asks for the first wrong step of a solution. Source: arXiv:2510.22543, after arXiv:2412.06559.
FIRST_ERROR = """Here is a problem and a solution of it in steps, counted from 0.{reference}

<problem>
{problem}
</problem>

{steps}

Check the solution step by step. Say which is the first step that is wrong: an error, or a guess that nothing before it
supports. If all steps are sound, say -1. Put the number alone into \\boxed{{}}."""


def first_error_prompt(problem: str, steps: Sequence[str], reference: str | None = None) -> str:
    """The question for the first wrong step of a solution, to be answered with its number or -1 in a box.

    Args:
        reference: the problem's right answer, where it is known.
    """
    shown = "\n".join(f"<step_{i}>\n{step}\n</step_{i}>" for i, step in enumerate(steps))
    known = f" Its answer is {reference}." if reference else ""
    return FIRST_ERROR.format(problem=problem, steps=shown, reference=known)


def _process_bench(row: Row) -> dict[str, Any]:
    reference = row.get("reference")
    prompt = first_error_prompt(row["problem"], row["steps"], None if reference is None else str(reference))
    return {"prompt": prompt, "answer": str(row["label"])}


def _has_first_error(row: Row) -> bool:
    steps, label = row.get("steps"), row.get("label")
    whole = isinstance(steps, list) and bool(steps) and all(isinstance(step, str) for step in steps)
    return whole and isinstance(label, int) and not isinstance(label, bool) and _texts(row, "problem")


PRESETS = (
    Preset("ProcessBench", _has_first_error, _process_bench),
    Preset("GSM8K", lambda row: _texts(row, "question", "answer") and "####" in row["answer"], _gsm8k),
    Preset("SVAMP", lambda row: "Answer" in row and _texts(row, "Body", "Question"), _svamp),
    Preset("AIME24 and AMC23", lambda row: "answer" in row and _texts(row, "problem"), _problem),
)


def apply_preset(rows: list[Row]) -> tuple[list[Row], str | None]:
    """Rows in the form of the preset that fits them all, and its name; as they are where none fits."""
    if "prompt" not in rows[0]:
        for preset in PRESETS:
            if all(preset.fits(row) for row in rows):
                return [row.replace(preset.convert(row)) for row in rows], preset.name
    return rows, None
