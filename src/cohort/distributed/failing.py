"""Errors of one rank, as another is told of them."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Iterable
from dataclasses import dataclass

from cohort.errors import Diverged, UsageError


class RankError(RuntimeError):
    """Something failed on another rank in a way that no run can go on from."""


class Agreed(Exception):
    """All ranks know that one of them has failed, and do nothing more of what they did together.

    Attributes:
        error: to be raised in its place.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class RankLost(RuntimeError):
    """A rank has ended before the run did; all can be started again, and go on from the newest checkpoint (status 75)."""


@dataclass
class Failure:
    """An error of a rank.

    Attributes:
        error: pickled; None if it cannot be.
        text: its traceback.
    """

    rank: int
    error: bytes | None
    text: str

    @classmethod
    def of(cls, rank: int, error: BaseException) -> Failure:
        """An error as others can be told of it."""
        text = "".join(traceback.format_exception(error)).rstrip()
        try:
            packed = pickle.dumps(error)
            pickle.loads(packed)
        except Exception:
            return cls(rank, None, text)
        return cls(rank, packed, text)

    def raised(self) -> BaseException:
        """The error to be raised in its place here, which says whose it is."""
        found = None if self.error is None else pickle.loads(self.error)
        if isinstance(found, UsageError | Diverged):
            # What a user is told in a line.
            return type(found)(f"rank {self.rank}: {found}")
        error = RankError(f"rank {self.rank} failed: {self.text.splitlines()[-1]}")
        error.add_note(f"on rank {self.rank}:\n{self.text}")
        return error


def raise_first(found: Iterable[object], own: BaseException | None = None) -> None:
    """Raise the error of this rank, or else the first one among what ranks have told.

    Raises:
        Agreed: with that error.
    """
    if own is not None:
        raise Agreed(own)
    for each in found:
        if isinstance(each, Failure):
            raise Agreed(each.raised())
