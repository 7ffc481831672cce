"""Field names and answer formats of well-known data sets, recognised by their columns."""

from __future__ import annotations

import re
from collections.abc import Callable
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


PRESETS = (
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
