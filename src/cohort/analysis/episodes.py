"""The turns of recorded episodes: how a table holds them, and what stands in them, whatever a file has there."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from cohort.analysis.files import printable

# A rollout's turns are a list of these (docs/metrics.md).
TURN = pa.struct(
    {"start": pa.int32(), "end": pa.int32(), "reward": pa.float32(), "messages": pa.string(), "context": pa.string()}
)
TURNS = pa.list_(TURN)


def is_turns(kind: Any) -> bool:
    """True if a column of the type holds turns, of this version or with fields more or less."""
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return bool(listed and pa.types.is_struct(kind.value_type) and kind.value_type.get_field_index("messages") >= 0)


def as_turns(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of turns in this version's type.

    Raises:
        pa.ArrowException: a field is of another kind.
    """
    if column.type == TURNS:
        return column
    names = [field.name for field in TURN]
    rows = [
        None if row is None else [{name: (turn or {}).get(name) for name in names} for turn in row]
        for row in column.to_pylist()
    ]
    return pa.chunked_array([pa.array(rows, TURNS)])


def turns_of(stored: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """What a rollout's turns hold, as plain values for JSON; none of a rollout that nothing answered.

    Returns:
        for each turn start, end (the policy's tokens), reward (None where there is none), context (a text, or None), and
        messages: role, text, name, calls (name, arguments as a text), errors of calls, and whether a tool failed.
    """
    return [
        {
            "start": turn.get("start"),
            "end": turn.get("end"),
            "reward": _number(turn.get("reward")),
            "context": None if turn.get("context") is None else printable(str(turn["context"])),
            "messages": messages_of(turn.get("messages")),
        }
        for turn in stored or ()
        if turn is not None
    ]


def messages_of(text: Any) -> list[dict[str, Any]]:
    """Messages as plain values: role, text, name, calls, failed, errors; what is no list of messages is shown as it stands."""
    if not isinstance(text, str):
        return []
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list):
        return [_message({"content": text})]
    return [_message(each if isinstance(each, Mapping) else {"content": each}) for each in found]


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    errors = message.get("call_errors")
    return {
        "role": printable(str(message.get("role") or "")),
        "text": _text(content),
        "name": printable(str(message.get("name") or "")),
        "calls": list(_calls(message.get("tool_calls"))),
        "failed": message.get("failed") is True,
        "errors": [printable(str(each)) for each in errors] if isinstance(errors, list) else [],
    }


def _calls(calls: Any) -> Iterator[dict[str, str]]:
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function", call) if isinstance(call, Mapping) else {"name": call}
        function = function if isinstance(function, Mapping) else {"name": function}
        yield {"name": printable(str(function.get("name") or "")), "arguments": _text(function.get("arguments"))}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _number(value: Any) -> float | None:
    # To seven digits, which is what float32 holds.
    return float(f"{value:.7g}") if isinstance(value, int | float) and math.isfinite(value) else None
