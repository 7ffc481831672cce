"""Values as text between processes that do not trust each other.

What a program returns is told as plain values: numbers, texts, containers, and a few of the standard library's value types.
Nothing that is decoded runs anybody's code. The file is also sent into the sandbox as text, so that it imports little.
"""

from __future__ import annotations

from _json import encode_basestring_ascii as _text
from typing import Any

# Deeper values are refused.
DEEPEST = 200
# Elements of a set or a mapping: those whose hashes collide take the square of their number.
MOST = 20_000
_LISTS: dict[Any, str] = {list: "l", tuple: "t", set: "s", frozenset: "f"}


class Unspeakable(TypeError):
    """A value that is none of those that can be told."""


def encode(value: Any, other: Any = None, depth: int = 0) -> str:
    """A value as JSON.

    Args:
        other: (value) -> JSON of one that is not plain; None refuses it.

    Raises:
        Unspeakable: it is not plain, or too deep.
    """
    if value is None:
        return "null"
    kind = type(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return str(value) if -(1 << 62) < value < 1 << 62 else f'["n","{value:x}"]'
    if kind is str:
        return _text(value)
    if kind is float:
        return repr(value) if value - value == 0 else f'["x","{value!r}"]'
    if depth > DEEPEST:
        raise Unspeakable("a value is nested too deep")
    if kind in _LISTS:
        return f'["{_LISTS[kind]}"{"".join("," + encode(each, other, depth + 1) for each in value)}]'
    if kind is dict:
        pairs = (f",{encode(k, other, depth + 1)},{encode(v, other, depth + 1)}" for k, v in value.items())
        return f'["d"{"".join(pairs)}]'
    if kind is bytes or kind is bytearray:
        return f'["{"b" if kind is bytes else "a"}","{value.hex()}"]'
    if kind is complex:
        return f'["c",{encode(value.real)},{encode(value.imag)}]'
    if kind is range and len(value) <= MOST:
        return encode(list(value), other, depth)
    return _less_plain(value, kind, other, depth)


def _less_plain(value: Any, kind: Any, other: Any, depth: int) -> str:
    # A subclass of a plain type is told as that type; what it overrides is not asked.
    for base in (int, float, str, dict, list, tuple, set, frozenset, bytes):
        if base in kind.__mro__[1:]:
            if base is int:
                return encode(int.__add__(value, 0))
            if base is float:
                return encode(float.__add__(value, 0.0))
            if base is str:
                return encode(str.__getitem__(value, slice(None)))
            if base is dict:
                return encode(dict(dict.items(value)), other, depth)
            if base is bytes:
                return encode(bytes.__getitem__(value, slice(None)))
            made: Any = base
            return encode(made(made.__iter__(value)), other, depth)
    module, name = str(kind.__module__), str(kind.__name__)
    if (module, name) in (("decimal", "Decimal"), ("fractions", "Fraction")):
        return f'["{name}",{_text(str(value))}]'
    if (module, name) == ("collections", "deque"):
        return encode(list(value), other, depth)
    if module == "datetime" and name in ("date", "datetime", "time"):
        return f'["{name}",{_text(value.isoformat())}]'
    if (module, name) == ("datetime", "timedelta"):
        return f'["{name}",{value.days},{value.seconds},{value.microseconds}]'
    if name in ("dict_keys", "dict_values", "dict_items") and module == "builtins":
        return encode(set(value) if name == "dict_keys" else list(value), other, depth)
    if module.split(".")[0] == "numpy" and hasattr(value, "tolist"):
        return encode(value.tolist(), other, depth + 1)
    if other is None:
        raise Unspeakable(f"{name} is no plain value")
    return str(other(value))


def decode(told: Any, other: Any = None, depth: int = 0) -> Any:
    """The value that parsed JSON tells of.

    Args:
        other: (tagged list) -> the value that it stands for; None refuses it.

    Raises:
        Unspeakable: it tells of none.
    """
    if told is None or isinstance(told, (bool, int, float, str)):
        return told
    if not isinstance(told, list) or not told or not isinstance(told[0], str) or depth > DEEPEST + 5:
        raise Unspeakable("what came is no value")
    tag, rest = told[0], told[1:]
    try:
        if len(rest) > 2 * MOST and tag in ("s", "f", "d"):
            raise Unspeakable("a set or mapping is too large")
        if tag in ("l", "t", "s", "f"):
            made = [decode(each, other, depth + 1) for each in rest]
            return {"l": list, "t": tuple, "s": set, "f": frozenset}[tag](made)
        if tag == "d":
            made = [decode(each, other, depth + 1) for each in rest]
            return dict(zip(made[::2], made[1::2], strict=True))
        if tag == "n":
            return int(rest[0], 16)
        if tag == "x":
            return float({"nan": "nan", "inf": "inf", "-inf": "-inf"}[rest[0]])
        if tag in ("b", "a"):
            return (bytes if tag == "b" else bytearray).fromhex(rest[0])
        if tag == "c":
            return complex(decode(rest[0]), decode(rest[1]))
        if tag == "Decimal":
            from decimal import Decimal

            return Decimal(rest[0])
        if tag == "Fraction":
            from fractions import Fraction

            top, _, bottom = rest[0].partition("/")
            return Fraction(int(top), int(bottom or 1))
        if tag in ("date", "datetime", "time"):
            import datetime

            return getattr(datetime, tag).fromisoformat(rest[0])
        if tag == "timedelta":
            from datetime import timedelta

            return timedelta(*rest)
    except Unspeakable:
        raise
    except Exception as error:
        raise Unspeakable(f"what came is no value: {type(error).__name__}") from error
    if other is None:
        raise Unspeakable("what came is no value")
    return other(told)
