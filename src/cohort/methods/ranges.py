"""Types and ranges of hyperparameters: an interval, or the values that are allowed."""

from __future__ import annotations

import re
import typing
from types import UnionType
from typing import Any

from cohort.methods.stage import MethodError

# An interval such as "[0, 1)" or "(0, inf)", or the values themselves.
Range = str | tuple[Any, ...]
_INTERVAL = re.compile(r"(?P<open>[\[(])\s*(?P<low>-?[\w.]+)\s*,\s*(?P<high>-?[\w.]+)\s*(?P<close>[\])])")


def range_of(hint: Any) -> Range | None:
    """The range that stands in `Annotated[type, range]`; None if there is none."""
    found = typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ()
    return next((each for each in found if isinstance(each, (str, tuple))), None)


def fits(value: Any, hint: Any) -> bool:
    """The value is of the type that a recipe's parameter has; a whole number is a float too, a list a tuple."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return fits(value, inner[0])
    if origin in (typing.Union, UnionType):
        return any(fits(value, each) for each in inner)
    if hint in (int, float):
        return isinstance(value, (int, float) if hint is float else int) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str) or callable(value)  # from Python, where a text names a function
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            return False
        each = [inner[0]] * len(value) if inner[1:] == (...,) else inner
        return len(each) == len(value) and all(map(fits, value, each))
    if isinstance(origin, type):
        return isinstance(value, origin)
    return hint is Any or not isinstance(hint, type) or isinstance(value, hint)


def described(hint: Any) -> str:
    """In words what `fits` allows, with the range."""
    allowed, kind = range_of(hint), typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "a text", type(None): "None"}
    each = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, UnionType) else (kind,)
    text = " or ".join(names.get(one, str(one).replace("typing.", "")) for one in each)
    return f"{text} in {allowed}" if allowed is not None else text


def check(method: str, name: str, value: Any, allowed: Range) -> None:
    """A value lies in its range; None lies in every interval.

    Raises:
        MethodError: it does not; names the method, the hyperparameter and the range.
    """
    if isinstance(allowed, tuple):
        if value not in allowed:
            raise MethodError(f"'{method}': {name}={value!r} is not one of {', '.join(repr(a) for a in allowed)}")
        return
    match = _INTERVAL.fullmatch(allowed)
    assert match is not None, f"malformed range {allowed!r} of {method}.{name}"
    if value is None:
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise MethodError(f"'{method}': {name} must be a number in {allowed}, got {value!r}")
    low, high = float(match["low"]), float(match["high"])
    above = value >= low if match["open"] == "[" else value > low
    below = value <= high if match["close"] == "]" else value < high
    # What no float holds lies outside, whatever the range.
    if not (above and below) or (isinstance(value, int) and abs(value) >= 2**63):
        raise MethodError(f"'{method}': {name}={value!r} is out of range; it must lie in {allowed}")
