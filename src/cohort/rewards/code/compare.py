"""Outputs and values of a program against what was expected, outside its sandbox."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from cohort.rewards.code.wire import Unspeakable, decode

# Of floating-point numbers: relative, and absolute near zero.
RELATIVE, ABSOLUTE = 1e-6, 1e-9
_DECIMAL = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,4})?")
# Digits of an integer that is told as such; longer ones have another form (see wire.py).
DIGITS = 25


def same_output(said: str, expected: str) -> bool:
    """The same lines, up to white space at their ends, empty lines, and the rounding of decimal numbers."""
    lines, wanted = _lines(said), _lines(expected)
    return len(lines) == len(wanted) and all(map(_same_line, lines, wanted))


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.replace("\r\n", "\n").split("\n") if line.strip()]


def _same_line(said: str, expected: str) -> bool:
    if said == expected:
        return True
    words, wanted = said.split(), expected.split()
    return len(words) == len(wanted) and all(map(_same_word, words, wanted))


def _same_word(said: str, expected: str) -> bool:
    if said == expected:
        return True
    decimal = any(sign in expected for sign in ".eE") and _DECIMAL.fullmatch(expected) and len(said) < 400
    if not decimal or not _DECIMAL.fullmatch(said):
        return False
    return math.isclose(float(said), float(expected), rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def same_value(value: Any, expected: Any) -> bool:
    """The same value, where what was expected came from JSON: lists stand for tuples too, keys of mappings are texts, and
    floating-point numbers are compared up to rounding."""
    try:
        return _same(value, expected)
    except (RecursionError, OverflowError):
        return False


def _same(value: Any, expected: Any) -> bool:
    if isinstance(expected, bool) or isinstance(value, bool):
        return isinstance(value, (bool, int)) and isinstance(expected, (bool, int)) and value == expected
    if isinstance(expected, float) or (isinstance(value, float) and isinstance(expected, int)):
        if not isinstance(value, (int, float)):
            return False
        return value == expected or math.isclose(value, expected, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    if isinstance(expected, (list, tuple)):
        listed = isinstance(value, (list, tuple)) and len(value) == len(expected)
        return listed and all(map(_same, value, expected))
    if isinstance(expected, dict):
        if not isinstance(value, dict) or len(value) != len(expected):
            return False
        if not all(isinstance(key, str) for key in value) and all(isinstance(key, str) for key in expected):
            value = {
                key if isinstance(key, str) else json.dumps(key): each for key, each in value.items() if _short(key)
            }
        return value.keys() == expected.keys() and all(_same(value[key], expected[key]) for key in expected)
    return type(value) is type(expected) and bool(value == expected)


def _short(key: Any) -> bool:
    return key is None or isinstance(key, (str, bool, int, float))


def told(line: bytes) -> tuple[bool, Any]:
    """What a program told of a case: (it returned, the value), or (False, an error).

    Raises:
        Unspeakable: it told nothing that can be read.
    """
    try:
        parsed = json.loads(line[1:], parse_int=_integer)
        return line[:1] == b"v", decode(parsed)
    except (ValueError, RecursionError) as error:
        raise Unspeakable("what the program returned cannot be read") from error


def _integer(text: str) -> int:
    if len(text) > DIGITS:
        raise ValueError("too many digits")
    return int(text)
