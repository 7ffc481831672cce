"""Rewards of structured answers: JSON, its schema, keys and fields.

A completion is read without its marked reasoning. A fence of ``` or ```json lines around all of it is taken off.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cohort.errors import UsageError, shown
from cohort.rewards.kinds import Function, Kind, Placed, Values, plain
from cohort.rewards.schemas import Schema, schema_in, schema_of
from cohort.rewards.verifiers import text_of, unanswered
from cohort.signals import json_text
from cohort.signals.answers import is_missing, outside_thought
from cohort.signals.json_text import NOTHING, read_json
from cohort.signals.patterns import Budget

KEYS = 'a list of keys, as ["name", "age"]'


def _said(completion: Any) -> str:
    return outside_thought(text_of(completion))


def valid(completions: Sequence[Any], **_: Any) -> Values:
    """1 if the completion is JSON; else 0."""
    return [float(read_json(_said(c)) is not NOTHING) for c in completions]


def bare(completions: Sequence[Any], **_: Any) -> Values:
    """1 if the completion is { to } with nothing around it; else 0. What is between need not be JSON."""
    return [float(json_text.is_bare(_said(c))) for c in completions]


def fenced(completions: Sequence[Any], **_: Any) -> Values:
    """1 if the completion is one fence with nothing around it; else 0."""
    return [float(json_text.is_fenced(_said(c))) for c in completions]


def keys_of(row: Mapping[str, Any], where: str) -> list[str]:
    """The keys that a row requires: its column `required_keys`, else what its `schema` requires.

    Raises:
        UsageError: it has neither, or what is no list of keys.
    """
    found = row.get("required_keys")
    if found is None and row.get("schema") is not None:
        schema = schema_of(row["schema"], f"{where}, column 'schema'").schema
        found = schema.get("required", []) if isinstance(schema, dict) else []
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            found = None
    if not isinstance(found, (list, tuple)) or not all(isinstance(key, str) for key in found):
        what = "has no column 'required_keys', nor a 'schema'" if found is None else f"has {shown(found)}"
        raise UsageError(
            f"{where} {what}: the reward 'json:keys' reads {KEYS}, there, or json:keys:name,age has them for all rows"
        )
    return list(found)


def has_keys(required: Sequence[str] | None) -> Function:
    """Share of the required keys at the top of the completion's object; those of the row where None are given."""

    def score(completions: Sequence[Any], required_keys: Any = None, schema: Any = None, **_: Any) -> Values:
        out: Values = []
        for i, completion in enumerate(completions):
            row = {name: column[i] for name, column in (("required_keys", required_keys), ("schema", schema)) if column}
            keys = required if required is not None else keys_of(row, f"row {i + 1}")
            out.append(json_text.keys_present(read_json(_said(completion)), keys))
        return out

    return score


def satisfies(given: Schema | None, judge: Callable[[Schema, Any], float]) -> Function:
    """What `judge` says of each completion's value and the schema, that of the row where None is given; 0 of no JSON."""

    def score(completions: Sequence[Any], schema: Any = None, **_: Any) -> Values:
        out: Values = []
        budget = Budget()
        for i, completion in enumerate(completions):
            wanted = given or schema_of(schema[i] if schema else None, f"row {i + 1}, column 'schema'")
            wanted.budget = budget
            value = read_json(_said(completion))
            out.append(0.0 if value is NOTHING else float(judge(wanted, value)))
        return out

    return score


JUDGES: dict[str, Callable[[Schema, Any], float]] = {"": Schema.holds, "partial": Schema.share}
PLAIN: dict[str, Function] = {"valid": valid, "bare": bare, "fenced": fenced}


def _parts(argument: str) -> tuple[str, str]:
    """("", FILE), ("partial", FILE) or ("keys", KEYS), or one of PLAIN with nothing."""
    form, _, rest = argument.partition(":")
    return (form, rest) if form in (*PLAIN, "partial", "keys") else ("", argument)


def _make(argument: str) -> Function | None:
    form, rest = _parts(argument)
    if form in PLAIN:
        return None if rest else PLAIN[form]
    if form == "keys":
        keys = [key.strip() for key in rest.split(",")] if rest else None
        if keys is not None and not all(keys):
            raise UsageError(f"reward 'json:{argument}': write json:keys:name,age")
        return has_keys(keys)
    return satisfies(schema_in(rest, f"reward 'json:{argument}'") if rest else None, JUDGES[form])


def _check(argument: str, rows: Sequence[Placed]) -> None:
    """Rows have a schema, or keys, where the reward does not bring them."""
    form, rest = _parts(argument)
    if form in PLAIN or rest:
        return
    for where, row in rows:
        if form == "keys":
            keys_of(row, where)
        elif row.get("schema") is None:
            raise UsageError(
                f"the reward 'json' compares with the column 'schema', which {where} lacks (it has: {', '.join(row)}): add it, "
                "or name one for all rows, as json:schema.json; json:valid asks for no more than JSON"
            )
        else:
            schema_of(row["schema"], f"{where}, column 'schema'")


# a row's answer --------------------------------------------------------------------------------------------------------


def gold_json(gold: Any) -> Any:
    """A row's `answer` as a value of JSON: the text of one is read, another value is itself."""
    if isinstance(gold, str) and (value := read_json(gold)) is not NOTHING:
        return value
    return gold


def _against(judge: Callable[[Any, Any], float]) -> Function:
    def score(completions: Sequence[Any], answer: Sequence[Any], **_: Any) -> Values:
        out: Values = []
        for completion, gold in zip(completions, answer, strict=True):
            value = read_json(_said(completion))
            none = None if is_missing(gold) else 0.0
            out.append(none if none is None or value is NOTHING else float(judge(value, gold_json(gold))))
        return out

    return score


def no_object(argument: str, rows: Sequence[Placed]) -> None:
    """The words of fields are compared with an object's."""
    for where, row in rows:
        gold = gold_json(row.get("answer"))
        if argument == "words" and not is_missing(gold) and not (isinstance(gold, Mapping) and gold):
            raise UsageError(
                f"the reward 'json-answer:words' compares the fields of an object, but the column 'answer' of {where} is "
                f"{shown(gold)}: write it as an object, or take json-answer"
            )


KINDS = (
    Kind(
        "json",
        (
            "json",
            "json:SCHEMA.json",
            "json:partial",
            "json:partial:SCHEMA.json",
            "json:valid",
            "json:keys",
            "json:keys:KEY,KEY",
            "json:bare",
            "json:fenced",
        ),
        _make,
        check=_check,
    ),
    plain(
        "json-answer",
        {
            "": _against(json_text.same),
            "partial": _against(json_text.fields_equal),
            "words": _against(json_text.fields_overlap),
        },
        verifies=True,
        columns=("answer",),
        check=no_object,
        inapplicable=unanswered,
    ),
)
