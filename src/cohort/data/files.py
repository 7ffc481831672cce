"""Data files: every cell as it stands in the file, every row with its place."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from cohort.data.rows import Row, checked_row
from cohort.errors import UsageError

# A cell may be a whole document; the module's own limit is 128 KiB.
_LONGEST_CELL = 2**31 - 1


def kind_of(path: Path) -> str | None:
    """The kind of a data file by its name, as ".csv"; None for no known kind.

    A text file may be compressed: `rows.csv.gz` is a ".csv".
    """
    kinds = [suffix.lower() for suffix in path.suffixes]
    if kinds[-1:] == [".gz"]:
        kinds.pop()
        return kinds[-1] if kinds and kinds[-1] in _TEXTS else None
    return kinds[-1] if kinds and kinds[-1] in FILES else None


def read_file(path: Path) -> list[Row]:
    """The rows of a data file; none are left out but empty lines.

    Cells of .csv and .tsv are texts, as they stand; an empty one is an empty text.

    Raises:
        UsageError: it cannot be read, or is malformed; the message says where, and what was expected.
    """
    kind = kind_of(path)
    assert kind is not None
    try:
        if kind == ".parquet":
            return list(_parquet(path))
        with path.open("rb") as file:
            text: IO[bytes] = gzip.GzipFile(fileobj=file) if path.suffix.lower() == ".gz" else file  # type: ignore[assignment]
            return list(_TEXTS[kind](path, text))
    except (OSError, EOFError, zlib.error) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise UsageError(f"{path} cannot be read: {reason}") from error


# text ----------------------------------------------------------------------------------------------------------------


def _decoded(data: bytes, path: Path, line: int = 1) -> str:
    """The text of some bytes; `line` is their first one's."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UsageError(f"{path} is in UTF-16: save it in UTF-8, as by `iconv -f UTF-16 -t UTF-8`")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line += data[: error.start].count(b"\n")
        raise UsageError(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is no UTF-8: save the file in UTF-8, as by "
            "`iconv -f WINDOWS-1252 -t UTF-8`"
        ) from error
    if "\0" in text:
        line += text[: text.index("\0")].count("\n")
        raise UsageError(f"{path}, line {line}: a NUL byte: remove it, or save the file in UTF-8 if it is in UTF-16")
    return text


def _separated(path: Path, file: IO[bytes], separator: str) -> Iterator[Row]:
    text = _decoded(file.read(), path)
    before = csv.field_size_limit(_LONGEST_CELL)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    header: list[str] | None = None
    line = 1
    try:
        for cells in lines:
            if header is None and cells:
                header = cells
                _distinct(header, path)
                other = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), None)
                if other is not None:
                    raise UsageError(
                        f"{path}, line {line}: the names of the columns are separated by {other!r}: save it with "
                        f"{'tabs' if separator == chr(9) else 'commas'}{' or name it .tsv' if other == chr(9) else ''}"
                    )
            elif header is not None and cells:
                if len(cells) != len(header):
                    raise UsageError(
                        f"{path}, line {line}: expected {len(header)} cells, as many as the first line has, found "
                        f"{len(cells)}: put a cell that holds {'a tab' if separator == chr(9) else 'a comma'}, a quotation "
                        "mark or a line break into quotation marks"
                    )
                yield checked_row(dict(zip(header, cells, strict=True)), str(path), f"line {line}")
            line = lines.line_num + 1
    except csv.Error as error:
        raise UsageError(
            f"{path}, line {line}: malformed: {error}: put a cell that holds a quotation mark into quotation marks, and "
            "double those inside"
        ) from error
    finally:
        csv.field_size_limit(before)
    if header is None:
        raise UsageError(f"{path} is empty: expected a first line with the names of the columns")


def _distinct(names: Sequence[str], path: Path) -> None:
    doubled = [name for name, many in Counter(names).items() if many > 1]
    if doubled:
        raise UsageError(f"{path}: there are several columns '{doubled[0]}': rename them, or leave all but one out")


def _csv(path: Path, file: IO[bytes]) -> Iterator[Row]:
    return _separated(path, file, ",")


def _tsv(path: Path, file: IO[bytes]) -> Iterator[Row]:
    return _separated(path, file, "\t")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; one whose keys are not distinct would lose values."""
    found = dict(pairs)
    if len(found) < len(pairs):
        doubled = next(key for key, many in Counter(key for key, _ in pairs).items() if many > 1)
        raise ValueError(f"the key '{doubled}' stands several times in an object")
    return found


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text} is too large: write it as a text")
    return value


def _int(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"a number of {len(text)} digits is too large: write it as a text") from error


def _from_json(text: str, path: Path, line: int | None = None) -> Any:
    """A value of JSON; NaN and Infinity, which Python writes, are numbers.

    Args:
        line: of the file, where the text is one of its lines.
    """
    where = str(path) if line is None else f"{path}, line {line}"
    try:
        return json.loads(text, object_pairs_hook=_object, parse_float=_float, parse_int=_int)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if line is not None else f"line {error.lineno}, column {error.colno}"
        hint = ""
        if line is None and error.msg == "Extra data":
            hint = "; if every line is a row, name the file .jsonl"
        raise UsageError(f"{where}: malformed JSON: {error.msg} ({place}){hint}") from error
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{where}: a value is nested too deep: write it as a text, or leave it out") from error


def _jsonl(path: Path, file: IO[bytes]) -> Iterator[Row]:
    line = 0
    for ended in file:
        # Old line ends stand alone: within JSON neither \r nor \n may.
        for data in ended.rstrip(b"\r\n").split(b"\r"):
            line += 1
            if not data.strip():
                continue
            row = _from_json(_decoded(data, path, line), path, line)
            if not isinstance(row, dict):
                raise UsageError(f"{path}, line {line}: expected an object with columns, found {type(row).__name__}")
            yield checked_row(row, str(path), f"line {line}")


def _json(path: Path, file: IO[bytes]) -> Iterator[Row]:
    values = _from_json(_decoded(file.read(), path), path)
    if isinstance(values, dict):
        # As in {"version": 1, "data": [{...}, {...}]}.
        lists = [v for v in values.values() if isinstance(v, list) and v and all(isinstance(row, dict) for row in v)]
        if len(lists) != 1:
            raise UsageError(
                f"{path}: expected a list of objects, found dict (with {', '.join(values) or 'no key'}): write "
                '[{"prompt": ...}, ...], or a file .jsonl with an object a line'
            )
        values = lists[0]
    if not isinstance(values, list):
        raise UsageError(f"{path}: expected a list of objects, found {type(values).__name__}")
    for i, row in enumerate(values, 1):
        if not isinstance(row, dict):
            raise UsageError(f"{path}, row {i}: expected an object with columns, found {type(row).__name__}")
        yield checked_row(row, str(path), f"row {i}")


# tables --------------------------------------------------------------------------------------------------------------


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet

    try:
        # Not `read_table`, which makes columns of folders that are called a=b.
        table = pyarrow.parquet.ParquetFile(path).read()
        _distinct(table.column_names, path)
        rows = table.to_pylist()
    except (UsageError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        # What a damaged file makes of the reader is of many types.
        reason = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise UsageError(f"{path}: no readable Parquet file: {reason}") from error
    for i, row in enumerate(rows, 1):
        yield checked_row(row, str(path), f"row {i}")


_TEXTS: dict[str, Callable[[Path, IO[bytes]], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
}
FILES = (*_TEXTS, ".parquet")
