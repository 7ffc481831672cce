"""Errors of one rank, as another is told of them."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Iterable
from dataclasses import dataclass

from cohort.errors import Diverged, UsageError, out_of_memory


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


class OutOfMemory(RankLost):
    """A rank ran out of memory where others wait for its passes: all are started again, with micro-batches of half the size."""


def given_up(rank: int, error: Exception, halved: bool) -> Exception:
    """What an error becomes that a rank cannot mend by itself, since others wait for its passes.

    Args:
        halved: micro-batches are half as large as asked for, already.
    """
    if not out_of_memory(error):
        return error
    said = str(error).strip().splitlines()[:1] or [type(error).__name__]
    if halved:
        return UsageError(
            "out of memory, also in micro-batches of half the size: lower micro_tokens, max_new_tokens or the length of the "
            f"prompts ({said[0]})"
        )
    return OutOfMemory(f"rank {rank} ran out of memory ({said[0]}): from here on micro-batches are half as large")


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
        if isinstance(found, OutOfMemory):
            return found
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
