"""What a pool says to its members, and what they say to it."""

from __future__ import annotations

import importlib.machinery
from dataclasses import dataclass, replace
from typing import Any, Protocol

from cohort.engine.base import Completion, Sampling
from cohort.errors import UsageError
from cohort.types import Prompt, Request, Segment
from cohort.types.support import Support

# Stands for a request's task, which no engine reads.
NO_PROMPT = Prompt("", "", (), "")


class Command(Protocol):
    """Something to do."""


@dataclass(frozen=True)
class Offer:
    """The weights of a version can be had.

    Attributes:
        weights: where; None if they are in the member's hands already.
    """

    version: int
    weights: Any


@dataclass(frozen=True)
class Drop:
    """Nothing is drawn with a version any more."""

    version: int


@dataclass(frozen=True)
class Open:
    """A session begins, to be drawn with the weights of a version."""

    session: int
    sampling: Sampling
    version: int


@dataclass(frozen=True)
class Submit:
    """A request is to be drawn in a session; a ticket is given once, also where one request is drawn again."""

    session: int
    ticket: int
    request: Request


@dataclass(frozen=True)
class Forget:
    """No request will go on from the one with this ticket."""

    session: int
    ticket: int


@dataclass(frozen=True)
class End:
    """What a session was given is most likely all."""

    session: int


@dataclass(frozen=True)
class Close:
    """A session is over, whatever is still being drawn."""

    session: int


class Reply(Protocol):
    """Something that a member says."""


@dataclass(frozen=True)
class Joined:
    """A member is there, and knows nothing of earlier times."""


@dataclass(frozen=True)
class Beat:
    """A member is there still."""


@dataclass(frozen=True)
class Loaded:
    """The weights of a version were taken over."""

    version: int
    seconds: float
    bytes: int


@dataclass(frozen=True)
class Done:
    """A request was drawn."""

    ticket: int
    completion: Completion


@dataclass(frozen=True)
class Failed:
    """What was asked for cannot be done, by no member."""

    error: Exception


@dataclass(frozen=True)
class Lost:
    """A member is not there any more, or cannot be reached.

    Attributes:
        why: what is known of the reason.
        error: what it refused to start for, if it did.
        final: it will not come back.
    """

    why: str
    error: Exception | None = None
    final: bool = False


def slim(request: Request) -> Request:
    """The request without what an engine does not read: the task, notes, and what is known of its history."""
    history = tuple(
        Segment(segment.actions, segment.writer, support=_soft(segment.support)) for segment in request.history
    )
    return replace(request, prompt=NO_PROMPT, history=history, meta={}, turns=(), parent=None)


def _soft(support: Support | None) -> Support | None:
    return support if support is not None and support.soft is not None else None


def check_sendable(request: Request) -> None:
    """Another process can read the request.

    Raises:
        UsageError: what draws its tokens stands in a file that is no module there.
    """
    for part in (request.processor, request.mixer):
        if part is None:
            continue
        kind = type(part)
        if importlib.machinery.PathFinder.find_spec(kind.__module__.partition(".")[0]) is None:
            raise UsageError(
                f"the method draws with {kind.__qualname__} of {kind.__module__}, which other processes cannot import: put "
                "it into a package that is installed, or draw in this process (--engine native, without --workers)"
            )
