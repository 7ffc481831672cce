"""Field names and answer formats of well-known data sets, recognised by their columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cohort.data.rows import Row
from cohort.rewards.answers import number, plain


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
    """An answer as text: 27.0 -> "27"; other texts as they are."""
    found = number(str(value))
    return str(value).strip() if found is None else plain(found)


def _gsm8k(row: Row) -> dict[str, Any]:
    return {"prompt": row["question"], "solution": row["answer"], "answer": row["answer"].rsplit("####", 1)[1].strip()}


def _svamp(row: Row) -> dict[str, Any]:
    body = row["Body"].strip()
    body = body if body.endswith((".", "?", "!", ",")) else body + "."
    return {"prompt": f"{body} {row['Question'].strip()}", "answer": plain_number(row["Answer"])}


def _problem(row: Row) -> dict[str, Any]:
    return {"prompt": row["problem"], "answer": plain_number(row["answer"])}


PRESETS = (
    Preset("GSM8K", lambda row: "question" in row and "####" in str(row.get("answer")), _gsm8k),
    Preset("SVAMP", lambda row: {"Body", "Question", "Answer"} <= set(row), _svamp),
    Preset("AIME24 and AMC23", lambda row: {"problem", "answer"} <= set(row), _problem),
)


def apply_preset(rows: list[Row]) -> tuple[list[Row], str | None]:
    """Rows in the form of the preset that fits them all, and its name; as they are where none fits."""
    if "prompt" not in rows[0]:
        for preset in PRESETS:
            if all(preset.fits(row) for row in rows):
                return [row.but(preset.convert(row)) for row in rows], preset.name
    return rows, None
