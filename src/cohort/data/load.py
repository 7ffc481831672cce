"""Rows of a data set: from files, the hub, reasoning-gym, or Python."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from cohort.data.files import FILES, kind_of, read_file
from cohort.data.rows import Row, as_data_set, checked_row
from cohort.errors import UsageError

# What a name with one of these ends says of itself: it is no data set of the hub.
_OTHER_FILES = re.compile(r"\.(txt|md|xlsx?|ods|arrow|feather|ndjson|pkl|npy|pt|h5|ya?ml|gz|zip|bz2|xz|zst|tar)$", re.I)


def load_rows(source: Any, *, seed: int = 0) -> list[Row]:
    """Rows of a data set, each with its place.

    Args:
        source: a file (.jsonl, .json, .csv, .tsv, .parquet; those of text also with .gz);
            `reasoning_gym:TASK?size=500&seed=1&...`; a hub id, with `?split=...&name=...` where needed; or what
            `given_rows` takes.
        seed: for a procedural task that names none.

    Raises:
        UsageError: missing or malformed file (with its line), unknown task, or no rows.
    """
    if not isinstance(source, (str, Path)):
        rows = given_rows(source)
        where = "the data given"
    else:
        where = str(source)
        rows = _read(where, seed, local=isinstance(source, Path))
    if not rows:
        raise UsageError(f"{where} has no rows")
    return as_data_set(rows)


def given_rows(source: Any) -> list[Row]:
    """Rows from Python: mappings of columns, from a list, a generator, or a data set that gives such; or a table.

    A table is a data frame (of pandas or polars) or one of Arrow; what is missing in it is None.

    Raises:
        UsageError: it is none of these; the message says which row is no mapping.
    """
    if isinstance(source, Mapping):
        held = ", ".join(map(str, source))
        raise UsageError(
            f"data: expected rows, found one {type(source).__name__} (of {held}): give one of these, or rows"
        )
    if hasattr(source, "columns") and hasattr(source, "notna"):
        _once([str(name) for name in source.columns])
        source = source.astype(object).where(source.notna(), None).to_dict("records")
    elif hasattr(source, "__arrow_c_stream__") or hasattr(source, "__arrow_c_array__"):
        import pyarrow as pa

        table = pa.table(source)
        _once(table.column_names)
        source = table.to_pylist()
    if isinstance(source, (str, bytes)) or not isinstance(source, Iterable):
        raise UsageError(
            f"data: expected rows, a data frame, an Arrow table, or the name of a file, found {source!r:.60}"
        )
    rows = []
    for i, row in enumerate(source, 1):
        if not isinstance(row, Mapping):
            raise UsageError(f"data, row {i}: expected a mapping of columns, found {type(row).__name__}")
        rows.append(checked_row(row, "data", f"row {i}"))
    return rows


def _once(names: list[str]) -> None:
    for i, name in enumerate(names):
        if name in names[:i]:
            raise UsageError(f"data: there are several columns '{name}': rename them, or leave all but one out")


def _read(source: str, seed: int, *, local: bool) -> list[Row]:
    expanded = os.path.expanduser(source)
    path = Path(expanded)
    if kind_of(path) is not None and not os.path.isdir(expanded):
        # What is no file may still be one to read from, such as a pipe.
        if not os.path.exists(expanded):
            raise UsageError(f"data: there is no file {source}")
        return read_file(path)
    name, _, query = source.partition("?")
    # A plus is meant as one, as in split=train+test.
    options = {k: _value(v) for k, v in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)}
    if name.startswith("reasoning_gym:"):
        return _numbered(_reasoning_gym(name.split(":", 1)[1], {"size": 500, "seed": seed, **options}), source)
    if os.path.isdir(expanded):
        raise UsageError(f"data: {source} is a folder: name a file in it ({', '.join(FILES)})")
    if os.path.exists(expanded):
        raise UsageError(f"data: {source} is no file of a known kind ({', '.join(FILES)})")
    if local or _looks_local(name):
        raise UsageError(f"data: there is no such file or folder: {source}")
    return _numbered(_hub(name, options), source)


def _numbered(rows: Iterable[Mapping[str, Any]], source: str) -> list[Row]:
    return [checked_row(row, source, f"row {i}") for i, row in enumerate(rows, 1)]


def _looks_local(name: str) -> bool:
    """True if a name cannot be one of the hub, which is NAME or OWNER/NAME, or is plainly meant as a path."""
    owner, _, rest = name.partition("/")
    return (
        re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) is None
        or name.startswith(".")
        or _OTHER_FILES.search(name) is not None
        or (bool(rest) and os.path.isdir(owner))
    )


def _value(text: str) -> Any:
    if text in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[text]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _reasoning_gym(task: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if task not in DATASETS:
        import difflib

        near = difflib.get_close_matches(task, list(DATASETS), n=3)
        raise UsageError(f"reasoning-gym has no task '{task}'" + (f"; did you mean {', '.join(near)}?" if near else ""))
    try:
        entries = list(reasoning_gym.create_dataset(task, **options))
    except (TypeError, AssertionError, ValueError) as error:
        raise UsageError(f"reasoning_gym:{task}: {error}") from error
    return [{"prompt": entry["question"], **entry} for entry in entries]


def _hub(name: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    import datasets

    options = {"split": "train", **options}
    try:
        return [dict(row) for row in datasets.load_dataset(name, **options)]
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise UsageError(
            f"data: '{name}' is no file ({', '.join(FILES)}) and could not be loaded from the hub: {reason}"
        ) from error
