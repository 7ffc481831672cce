"""A row of a data set, and the place where it stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cohort.errors import UsageError

# Deeper values cannot be sent to the process of the reward functions.
DEEPEST = 100


class Row(dict[str, Any]):
    """Columns of a row.

    Attributes:
        place: what messages call it, counted from 1 as in its file: "line 3" of a text file, "row 3" of other data.
        known: all columns of its data set, those that it lacks included.
    """

    def __init__(self, columns: Mapping[str, Any], place: str, known: Sequence[str] = ()) -> None:
        super().__init__(columns)
        self.place, self.known = place, known

    def replace(self, columns: Mapping[str, Any]) -> Row:
        """The row with other or further columns."""
        return Row({**self, **columns}, self.place, self.known)


def as_data_set(rows: Sequence[Row]) -> list[Row]:
    """Rows as those of one data set: each knows the columns of all."""
    known = tuple(dict.fromkeys(name for row in rows for name in row))
    return [Row(row, row.place, known) for row in rows]


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Name -> a value a row, None where a row has none: every column of the data that the rows come from, in its order."""
    names = dict.fromkeys(name for row in rows for name in (*(row.known if isinstance(row, Row) else ()), *row))
    return {name: [row.get(name) for row in rows] for name in names}


def place_of(row: Mapping[str, Any]) -> str:
    """The place of a row of a data set; of a mapping that is none, "row"."""
    return row.place if isinstance(row, Row) else "row"


def places_of(rows: Sequence[Mapping[str, Any]], most: int = 5) -> str:
    """The places of some rows of the same data: "lines 3, 8, 9 ..." of a text file."""
    places = [place_of(row).split() for row in rows[:most]]
    what = f"{places[0][0]}{'s' * (len(rows) > 1)}"
    return f"{what} {', '.join(place[-1] for place in places)}{' ...' if len(rows) > most else ''}"


def checked_row(columns: Mapping[str, Any], where: str, place: str) -> Row:
    """A row whose values are texts, numbers and the like throughout.

    Args:
        where: name of the data, for messages.

    Raises:
        UsageError: a column without a name, a text with half a character, or values nested more than 100 deep.
    """
    left: list[tuple[Any, int]] = [(columns, 0)]
    while left:
        value, depth = left.pop()
        if isinstance(value, str):
            _whole(value, where, place)
        elif isinstance(value, (dict, list, tuple)) or depth == 0:
            if depth > DEEPEST:
                raise UsageError(
                    f"{where}, {place}: a value is nested more than {DEEPEST} deep: write it as a text, or leave it out"
                )
            inner: Iterable[Any] = value if isinstance(value, (list, tuple)) else [*value, *value.values()]
            left += [(each, depth + 1) for each in inner if isinstance(each, (str, dict, list, tuple))]
    for name in columns:
        if not isinstance(name, str):
            raise UsageError(f"{where}, {place}: the names of columns must be texts, not {name!r}")
    return Row(columns, place)


def _whole(text: str, where: str, place: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise UsageError(
            f"{where}, {place}: a text holds half a character (\\u{ord(half):04x}, a lone surrogate), which cannot be "
            "encoded: correct or remove it"
        ) from error
