"""Rows of a data set: from files, the hub, reasoning-gym, or Python."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from cohort.errors import UsageError

Row = dict[str, Any]
FILES = (".jsonl", ".json", ".csv", ".parquet")


def load_rows(source: str | Path | Iterable[Mapping[str, Any]], *, seed: int = 0) -> list[Row]:
    """Rows of a data set.

    Args:
        source: a file (.jsonl, .json, .csv, .parquet); `reasoning_gym:TASK?size=500&seed=1&...`; a hub id, with
            `?split=...&name=...` where needed; or rows.
        seed: for a procedural task that names none.

    Raises:
        UsageError: missing or malformed file (with its line), unknown task, or no rows.
    """
    if not isinstance(source, (str, Path)):
        rows = [_given(row, i) for i, row in enumerate(source, 1)]
        where = "the data given"
    else:
        where = str(source)
        rows = _read(where, seed)
    if not rows:
        raise UsageError(f"{where} has no rows")
    return rows


def _given(row: Any, number: int) -> Row:
    if not isinstance(row, Mapping):
        raise UsageError(f"data, row {number}: expected a mapping of columns, found {type(row).__name__}")
    return dict(row)


def _read(source: str, seed: int) -> list[Row]:
    path = Path(source).expanduser()
    if path.suffix in FILES:
        if not path.is_file():
            raise UsageError(f"data: there is no file {source}")
        return _FORMATS[path.suffix](path)
    name, _, query = source.partition("?")
    # A plus is meant as one, as in split=train+test.
    options = {k: _value(v) for k, v in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)}
    if name.startswith("reasoning_gym:"):
        return _reasoning_gym(name.split(":", 1)[1], {"size": 500, "seed": seed, **options})
    if path.exists():
        raise UsageError(f"data: {source} is no file of a known kind ({', '.join(FILES)})")
    return _hub(name, options)


def _value(text: str) -> Any:
    if text in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[text]
    try:
        return json.loads(text)
    except ValueError:
        return text


def _objects(values: Any, path: Path) -> list[Row]:
    if not isinstance(values, list):
        raise UsageError(f"{path}: expected a list of objects, found {type(values).__name__}")
    for i, row in enumerate(values):
        if not isinstance(row, dict):
            raise UsageError(f"{path}, row {i + 1}: expected an object with columns, found {type(row).__name__}")
    return values


def _jsonl(path: Path) -> list[Row]:
    rows = []
    with path.open("rb") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text.decode("utf-8-sig"))
            except ValueError as error:
                # The line that a decoder counts is always the first.
                reason = f"{error.msg} (column {error.colno})" if isinstance(error, json.JSONDecodeError) else error
                raise UsageError(f"{path}, line {line}: malformed JSON: {reason}") from error
            if not isinstance(row, dict):
                raise UsageError(f"{path}, line {line}: expected an object with columns, found {type(row).__name__}")
            rows.append(row)
    return rows


def _json(path: Path) -> list[Row]:
    try:
        return _objects(json.loads(path.read_text(encoding="utf-8-sig")), path)
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path}: malformed JSON: {error}") from error


def _csv(path: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.csv

    try:
        return list(
            pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True)).to_pylist()
        )
    except pa.ArrowInvalid as error:
        raise UsageError(f"{path}: malformed CSV: {error}") from error


def _parquet(path: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        return list(pyarrow.parquet.read_table(path).to_pylist())
    except pa.ArrowInvalid as error:
        raise UsageError(f"{path}: no readable Parquet file: {error}") from error


_FORMATS = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}


def _reasoning_gym(task: str, options: dict[str, Any]) -> list[Row]:
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


def _hub(name: str, options: dict[str, Any]) -> list[Row]:
    import datasets

    options = {"split": "train", **options}
    try:
        return [dict(row) for row in datasets.load_dataset(name, **options)]
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise UsageError(
            f"data: '{name}' is no file ({', '.join(FILES)}) and could not be loaded from the hub: {reason}"
        ) from error
