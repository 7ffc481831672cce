"""Completions that somebody judged: ordered, graded on several axes, or labelled. What reward models learn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

from cohort.data.load import load_rows
from cohort.data.messages import is_chat, messages_of
from cohort.data.pairs import LABELS, SIDES, written_text
from cohort.data.prompts import EMPTY, PromptSpec, source_of, template_of
from cohort.data.rows import Row, places_of
from cohort.errors import UsageError, shown
from cohort.types import Message

Kind = Literal["pairs", "scores", "labels"]
FORM = (
    "a row has 'chosen' and 'rejected', or columns that --ranked names from best to worst; or a 'completion' with columns of "
    "scores that --score-field names, or with a 'label'"
)


@dataclass(frozen=True)
class Judged:
    """A prompt with completions that somebody judged.

    Attributes:
        completions: texts; of ordered ones the best first, else one.
        targets: of the completion, a number a label, None where it is not known; empty where they are ordered.
        where: what messages call the row.
    """

    prompt: str | list[Message]
    completions: tuple[str, ...]
    targets: tuple[float | None, ...]
    where: str


@dataclass(frozen=True)
class Judgements:
    """The judged rows of a data set.

    Attributes:
        labels: what their completions are judged by.
    """

    kind: Kind
    labels: tuple[str, ...]
    rows: list[Judged]


def read_judged(
    data: Any,
    spec: PromptSpec,
    *,
    completion_field: str = "completion",
    ranked: Sequence[str] = (),
    score_fields: Sequence[str] = (),
    label_field: str = "label",
    log: Callable[[str], None] = lambda _: None,
) -> Judgements:
    """The rows of a data set of judged completions, checked.

    Rows are pairs where they have `chosen` and `rejected` (with a `prompt`, or with what both begin with as one), or
    rankings of the columns `ranked`; graded where `score_fields` are named; else labelled.

    Raises:
        UsageError: data that cannot be read, or a row that is none of that; the message says which and what it lacks.
    """
    where = str(data) if isinstance(data, str) else "data"
    rows = [row.replace({}) for row in load_rows(data)]
    kind, columns, labels = _form(rows, where, completion_field, tuple(ranked), tuple(score_fields), label_field)
    template = template_of(spec.template)
    out: list[Judged] = []
    empty: list[Row] = []
    same: list[Row] = []
    for row in rows:
        at = f"{where}, {row.place}"
        _put_prompt(row, spec, columns if kind == "pairs" else (), template, at)
        lacks = next((column for column in columns if row.get(column) is None), None)
        if lacks is not None:
            raise UsageError(f"{at}: there is no text in column '{lacks}' (it has: {', '.join(row)}); {FORM}")
        texts = tuple(written_text(row, column, at) for column in columns)
        targets = () if kind == "pairs" else tuple(_target(row, label, kind, at) for label in labels)
        if kind == "pairs" and len(set(texts)) == 1:
            same.append(row)
        elif kind != "pairs" and all(target is None for target in targets):
            empty.append(row)
        else:
            out.append(Judged(_source(row, spec, template, at), texts, targets, at))
    for found, why in ((same, "have the same text throughout"), (empty, f"have none of {', '.join(labels)}")):
        if found:
            log(
                f"{where}: {len(found)} of {len(rows)} rows {why} and were left out: they teach nothing ({places_of(found)})"
            )
    _check_taught(where, kind, labels, out)
    return Judgements(kind, labels if kind != "pairs" else ("reward",), out)


def _form(
    rows: Sequence[Row], where: str, completion: str, ranked: tuple[str, ...], scores: tuple[str, ...], label: str
) -> tuple[Kind, tuple[str, ...], tuple[str, ...]]:
    """(kind, columns of the completions, labels) of a data set."""
    if ranked and scores:
        raise UsageError("--ranked orders completions and --score-field grades one: give one of them")
    if ranked:
        if len(ranked) < 2 or len(set(ranked)) < len(ranked):
            raise UsageError(
                f"--ranked names two columns or more, the best first and each once, not {', '.join(ranked)}"
            )
        return "pairs", ranked, ()
    if scores:
        if len(set(scores)) < len(scores):
            raise UsageError(f"--score-field names a column twice: {', '.join(scores)}")
        return "scores", (completion,), scores
    held = dict.fromkeys(name for row in rows for name in row)
    if any(side in held for side in SIDES):
        return "pairs", tuple(SIDES), ()
    if completion in held and label in held:
        return "labels", (completion,), (label,)
    raise UsageError(
        f"{where}: these rows say nothing of how good a completion is (they have: {', '.join(held)}); {FORM}"
    )


def _put_prompt(row: Row, spec: PromptSpec, columns: Sequence[str], template: str | None, where: str) -> None:
    """Name the row's prompt; what all of its completions begin with, if they are ordered and it has none."""
    if spec.prompt_field is not None:
        if spec.prompt_field not in row:
            raise UsageError(
                f"{where}: there is no column '{spec.prompt_field}' (--prompt-field); it has {', '.join(row)}"
            )
        row["prompt"] = row[spec.prompt_field]
    if "prompt" in row or template is not None:
        return
    found = [row[column] for column in columns if row.get(column) is not None]
    if len(found) < 2 or len(found) < len(columns):
        raise UsageError(
            f"{where}: there is no column 'prompt' (it has: {', '.join(row)}); name the one to use with --prompt-field, or "
            "fill a text with --template"
        )
    if all(is_chat(each) for each in found):
        talks = [messages_of(each) for each in found]
        size = min(sum(1 for _ in takewhile(lambda same: same, _same(talks))), *(len(talk) - 1 for talk in talks))
        row["prompt"] = talks[0][:size] or EMPTY
        row.update({column: talk[size:] for column, talk in zip(columns, talks, strict=True)})
    elif all(isinstance(each, str) for each in found):
        size = sum(1 for _ in takewhile(lambda same: same, _same(found)))
        # A space belongs to the word behind it, as tokenizers have it.
        size -= size > 0 and found[0][size - 1] == " "
        row["prompt"] = found[0][:size]
        row.update({column: text[size:] for column, text in zip(columns, found, strict=True)})
    else:
        raise UsageError(
            f"{where}: {', '.join(columns)} are texts in part and messages in part: make all of them one kind"
        )


def _same(sequences: Sequence[Sequence[Any]]) -> Any:
    return (all(each == parts[0] for each in parts) for parts in zip(*sequences, strict=False))


def _source(row: Row, spec: PromptSpec, template: str | None, where: str) -> str | list[Message]:
    source = source_of(row, template, where)
    if spec.system and (isinstance(source, str) or source[0]["role"] != "system"):
        source = [{"role": "user", "content": source}] if isinstance(source, str) else source
        source = [{"role": "system", "content": spec.system}, *source]
    return source


def _target(row: Row, label: str, kind: Kind, where: str) -> float | None:
    """What a row says of a label; None where that is missing."""
    value = row.get(label)
    if (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, str) and not value.strip())
    ):
        return None
    if kind == "labels":
        value = LABELS.get(value.strip().lower(), value) if isinstance(value, str) else value
        if not isinstance(value, (bool, int, float)) or value not in (0, 1):
            raise UsageError(f"{where}: '{label}' must be true or false (1 or 0), not {shown(row[label])}")
        return float(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(
            f"{where}: '{label}' must be a number, or empty where it is not known, not {shown(row[label])}"
        )
    return number


def _check_taught(where: str, kind: Kind, labels: Sequence[str], rows: Sequence[Judged]) -> None:
    if not rows:
        raise UsageError(f"{where}: no row is left to learn from; {FORM}")
    for i, label in enumerate(labels):
        found = {row.targets[i] for row in rows} - {None}
        if not found:
            raise UsageError(f"{where}: no row has a number in the column '{label}'")
        if len(found) == 1:
            raise UsageError(
                f"{where}: the column '{label}' is {found.pop():g} in every row that has it: there is nothing to tell apart"
            )
