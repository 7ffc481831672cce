"""What a judge is asked, and what comes back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# A text of the user, or messages.
Question = str | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Reply:
    """What a model replied.

    Attributes:
        text: the reply; empty where there is none.
        read, written: tokens of the question and of the reply; of a cached one those of the time when it was asked.
        finished: it was not cut off by its limit of tokens or time.
        cached: it was asked before, and cost nothing now.
        error: why there is no reply; empty where there is one.
        spent: there is none since the budget is spent.
    """

    text: str = ""
    read: int = 0
    written: int = 0
    finished: bool = True
    cached: bool = False
    error: str = ""
    spent: bool = False


@dataclass(frozen=True)
class Drawing:
    """How a reply is drawn.

    Attributes:
        tokens: most tokens of it.
        temperature: 0 takes the likeliest token each time.
        sample: tells apart several replies to one question.
    """

    tokens: int
    temperature: float = 0.0
    sample: int = 0


class Failed(Exception):
    """There is no reply to one question; `passing` if a later try may get one, `paid` if the last one cost something."""

    def __init__(self, message: str, *, passing: bool = True, paid: bool = False) -> None:
        super().__init__(message)
        self.passing, self.paid = passing, paid


class Unreachable(Exception):
    """A model gives no reply to any question, and will not; the message says why and what to do."""


def messages_of(question: Question) -> list[dict[str, Any]]:
    """The messages of a question; a text is one of the user."""
    if isinstance(question, str):
        return [{"role": "user", "content": question}]
    return [dict(message) for message in question]


def key_of(model: str, messages: Sequence[dict[str, Any]], drawing: Drawing) -> str:
    """What a question to a model is known by: a checksum of all that its reply depends on."""
    content = [model, list(messages), drawing.tokens, drawing.temperature, drawing.sample]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
