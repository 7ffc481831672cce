"""What a reward function returned, as floats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
from decimal import Decimal
from itertools import islice
from numbers import Real
from typing import Any

from cohort.errors import shown

# Larger ones have no variance in float32: their squares overflow, and all advantages would be 0.
LARGEST = 1e15
TEXTS = (str, bytes, bytearray, memoryview)


class BadValueError(ValueError):
    """What a reward function returned is no list of rewards."""


def check(values: Any, rows: int) -> list[float | None]:
    """The values of a reward function as floats.

    Args:
        values: a list, a tuple, an array or a tensor with one dimension, or anything else that gives its values in their
            order; a value is a number of any kind, an array or tensor of one number, or None.

    Raises:
        BadValueError: not `rows` numbers or None; says which, counted from 1, and of what type it is.
    """
    listed = _listed(values, rows)
    if len(listed) != rows:
        # Nobody counts the values of something that has no end.
        count = str(len(listed)) if hasattr(values, "__len__") or len(listed) < rows else f"more than {rows}"
        raise BadValueError(f"it returned {count} values for {rows} completions")
    return [None if value is None else _number(value, row) for row, value in enumerate(listed, 1)]


def _listed(values: Any, rows: int) -> list[Any]:
    no_list = f"it returned {type(values).__name__}, not a list of {rows} numbers"
    # A text or bytes would be read as its characters; a mapping or a set is not in the order of the completions.
    if isinstance(values, (*TEXTS, Mapping, Set, type)):
        raise BadValueError(no_list)
    if hasattr(values, "tolist"):
        try:
            values = values.tolist()
        except Exception as error:
            raise BadValueError(f"{no_list}: {type(error).__name__}: {error}") from error
        if not isinstance(values, list):
            raise BadValueError(f"{no_list}: it has no dimension")
        return values
    if hasattr(values, "__len__") and isinstance(values, Iterable):
        return list(values)
    if isinstance(values, Iterable):
        return list(islice(values, rows + 1))
    raise BadValueError(no_list)


def _number(value: Any, row: int) -> float:
    what = f"it returned {shown(value, 60)} ({type(value).__name__}) for completion {row}"
    if hasattr(value, "item") and not isinstance(value, type):
        try:
            value = value.item()
        except Exception as error:
            raise BadValueError(f"{what}, which is not one number") from error
    if not isinstance(value, (Real, Decimal)):
        raise BadValueError(f"{what}, which is no number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError, ArithmeticError) as error:
        raise BadValueError(f"{what}, which is no number") from error
    if math.isnan(number):
        raise BadValueError(f"{what}, which is no number")
    if abs(number) > LARGEST:
        raise BadValueError(f"{what}, which is beyond {LARGEST:g}, the largest reward that can be told from its like")
    return number
