"""The columns of a step's rollouts by their kind (docs/metrics.md names them), whatever a file has under those names."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cohort.analysis.episodes import as_turns, is_turns

_INTEGERS = ("group", "length")
_FLAGS = ("finished", "trained")
_TEXTS = ("prompt_id", "prompt", "question", "completion", "kept", "end", "error", "opening", "agent", "episode")
_TURNS = "turns"
_NUMBERS = ("reward", "accuracy", "shaped_reward", "logp_mean", "entropy_mean", "advantage_mean", "policy_gradient_abs")
_COUNTS = ("tokens", "version", "age")
_LISTS = (
    "mask",
    "sampler_logp",
    "old_entropy",
    "entropy",
    "base_advantage",
    "advantage",
    "old_logp",
    "logp",
    "ref_logp",
    "ratio",
    "weight",
    "policy_gradient",
    "clipped",
)


def regular(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """(the table with every known column of its kind, what was left out and why). Other columns stay if they are numbers,
    texts, or lists of these.

    Kinds are: integer, number, bool, text, and lists of integers, of numbers and of texts; any of them may be null.
    """
    names: list[str] = []
    columns: list[pa.ChunkedArray] = []
    said: list[str] = []
    for at, field in enumerate(table.schema):
        if field.name in names:
            said.append(f"it has the column `{field.name}` twice, and the first is read")
            continue
        wanted = _kind(field.name)
        try:
            column = _as(_decoded(table.column(at)), wanted)
            column.validate(full=True)
        except (pa.ArrowException, ValueError) as error:
            if wanted is not None:
                why = "" if isinstance(error, _Other) else f" ({str(error).splitlines()[0][:120]})"
                said.append(f"the column `{field.name}` holds {field.type}, not {wanted}, and is left out{why}")
            continue
        names.append(field.name)
        columns.append(column)
    table = pa.table(columns, names=names) if columns else pa.table({})
    odd = _of_other_lengths(table)
    said += [f"the column `{name}` has lists of other lengths than `{known}`, and is left out" for name, known in odd]
    return table.drop_columns([name for name, _ in odd]), said


def token_lists(table: pa.Table) -> list[str]:
    """Names of the columns with an entry a token."""
    return [field.name for field in table.schema if pa.types.is_list(field.type) and field.name != _TURNS]


def _of_other_lengths(table: pa.Table) -> list[tuple[str, str]]:
    """Columns whose lists have not as many entries as the rollout has tokens, each with the column that says so."""
    lists = token_lists(table)
    lists.sort(key=lambda name: ["tokens", "mask", name].index(name))
    first, *others = lists or [""]
    return [
        (name, first)
        for name in others
        if pc.any(pc.not_equal(pc.list_value_length(table[name]), pc.list_value_length(table[first]))).as_py()
    ]


class _Other(ValueError):
    """The column is of another kind."""


def _kind(name: str) -> str | None:
    if name == _TURNS:
        return _TURNS
    for kind, known in {"integers": _INTEGERS, "true or false": _FLAGS, "texts": _TEXTS, "numbers": _NUMBERS}.items():
        if name in known:
            return kind
    lists = {
        **dict.fromkeys(_COUNTS, "lists of integers"),
        "pieces": "lists of texts",
        **dict.fromkeys(_LISTS, "lists of numbers"),
    }
    return "numbers" if name.startswith("reward/") else lists.get(name)


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _as(column: pa.ChunkedArray, wanted: str | None) -> pa.ChunkedArray:
    """The column as one of a kind; None takes any that is shown.

    Raises:
        _Other, pa.ArrowException: it is of another kind, or has values that are.
    """
    kind = column.type
    if wanted == _TURNS:
        if not is_turns(kind):
            raise _Other
        return as_turns(column)
    if wanted is None:
        wanted = "texts" if _is_text(kind) else "numbers" if _is_number(kind) else _of_lists(kind)
    if wanted.startswith("lists of "):
        if pa.types.is_null(kind):
            return column.cast(pa.list_(pa.string() if wanted.endswith("texts") else pa.float32()))
        if not _is_list(kind):
            raise _Other
        value = _value(kind.value_type, wanted.removeprefix("lists of "))
        return column if pa.types.is_list(kind) and kind.value_type == value else column.cast(pa.list_(value))
    value = _value(kind, wanted)
    return column if kind == value else column.cast(value)


def _value(kind: Any, wanted: str) -> Any:
    """The type that values of a type are taken as."""
    number, text, empty = _is_number(kind), _is_text(kind), pa.types.is_null(kind)
    if wanted == "texts" and (text or empty or pa.types.is_integer(kind)):
        return pa.string()
    if wanted == "true or false" and (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or empty):
        return pa.bool_()
    if wanted == "integers" and (number or empty):
        return kind if pa.types.is_signed_integer(kind) else pa.int64()
    if wanted == "numbers" and (number or empty):
        whole = pa.types.is_integer(kind) or (pa.types.is_floating(kind) and not pa.types.is_float16(kind))
        return kind if whole else pa.int8() if pa.types.is_boolean(kind) else pa.float64()
    raise _Other


def _of_lists(kind: Any) -> str:
    if not _is_list(kind):
        raise _Other
    return "lists of texts" if _is_text(kind.value_type) else "lists of numbers"


def _is_number(kind: Any) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
