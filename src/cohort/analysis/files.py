"""Reading files that may be cut, damaged, foreign or made to do harm: within limits, and as plain values."""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

MOST_VALUES = 20_000
DEEPEST = 50


class Unreadable(Exception):
    """What stands there cannot be read; the message says why."""


class _Loader(yaml.SafeLoader):
    """YAML without merge keys (`<<`), which can make billions of entries of a few lines; a run's files have none."""

    def flatten_mapping(self, node: Any) -> None:
        pass


_NESTED = re.compile(r"(?:[\[{]\s*){64}")


def parse_yaml(text: str) -> Any:
    """What a YAML text holds.

    Raises:
        RecursionError: it is nested too deeply.
    """
    # The parser would find out too, after seconds.
    if _NESTED.search(text):
        raise RecursionError
    return yaml.load(text, Loader=_Loader)


def read_mapping(path: Path, parse: Callable[[str], Any], *, most: int) -> dict[str, Any]:
    """What a small file holds, as plain values with texts as keys.

    Args:
        most: bytes that it may have.

    Raises:
        Unreadable: there is no such file, it is too large, it holds no mapping, or nothing that can be parsed.
    """
    size = regular(path).st_size
    if size > most:
        raise Unreadable(f"it holds {of_bytes(size)}, and at most {of_bytes(most)} are read")
    try:
        # Not `size` bytes: it may be written to.
        with path.open("rb") as file:
            found = parse(file.read(most).decode("utf-8"))
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error
    except RecursionError as error:
        raise Unreadable("it is nested too deeply") from error
    except Exception as error:
        # Parsers of untrusted text fail in many ways: yaml alone has IndexError for `!!int ""`.
        raise Unreadable(first_line(error)) from error
    if not isinstance(found, dict):
        raise Unreadable("it holds no mapping")
    tidy: dict[str, Any] = plain(found)
    return tidy


def regular(path: Path) -> os.stat_result:
    """The state of a file; to open a pipe or a device could wait for ever.

    Raises:
        Unreadable: there is none, or it is something else.
    """
    try:
        state = path.stat()
    except (OSError, ValueError) as error:
        raise Unreadable(getattr(error, "strerror", None) or first_line(error)) from error
    if not stat.S_ISREG(state.st_mode):
        raise Unreadable("it is no file")
    return state


def plain(value: Any) -> Any:
    """A copy with what JSON can say: numbers that it has no words for become None, what it does not know becomes a text.

    Raises:
        Unreadable: it has more than `MOST_VALUES` values (aliases of YAML are counted as often as they are used), or is
            nested deeper than `DEEPEST`.
    """
    left = MOST_VALUES

    def copy(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise Unreadable(f"it holds more than {MOST_VALUES} values")
        if depth > DEEPEST:
            raise Unreadable(f"it is nested deeper than {DEEPEST} levels")
        if isinstance(value, dict):
            return {printable(str(key)): copy(each, depth + 1) for key, each in value.items()}
        if isinstance(value, list | tuple | set):
            return [copy(each, depth + 1) for each in value]
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, int):
            return value if value.bit_length() <= 64 else None
        return value if value is None else printable(str(value))

    return copy(value, 0)


def number(value: Any) -> float | int | None:
    """A finite number that a double can hold, or None."""
    if isinstance(value, int):
        return value if value.bit_length() <= 63 else float(value) if value.bit_length() < 1024 else None
    return value if isinstance(value, float) and math.isfinite(value) else None


def printable(text: str) -> str:
    """The text with what UTF-8 cannot say (lone surrogates, as in names of files that are no UTF-8) replaced."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def first_line(error: BaseException) -> str:
    """Of an error's message, or its kind where it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def of_bytes(count: int) -> str:
    """A number of bytes as one reads it."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What stands in a folder, by name; nothing if it cannot be read, or is gone."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except (OSError, ValueError):
        return []


def folders(root: Path, depth: int) -> Iterator[Path]:
    """Folders in a folder, down to a depth; links are followed, so that one to its parent is met again."""
    for entry in entries(root):
        try:
            inside = entry.is_dir()
        except OSError:
            continue
        if inside:
            path = root / entry.name
            yield path
            if depth > 1:
                yield from folders(path, depth - 1)
