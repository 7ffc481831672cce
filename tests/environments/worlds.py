"""Environments that tests make up."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cohort.environments import Environment, EnvironmentFactory, Observation, Step
from cohort.rewards.grader import Grader
from cohort.rewards.scorer import Scorer
from cohort.types import Message, Prompt


def grader(*rewards: Any) -> Grader:
    """Reward functions; none by default."""
    return Grader(Scorer([]), "", 1.0, 64)


class Guess:
    """Thinks of a digit, and says of every guess whether it is larger; the later it is found, the less it is worth."""

    def __init__(self, turns: int = 4) -> None:
        self.most, self.turn, self.closed = turns, 0, 0

    def reset(self, row: Mapping[str, Any], seed: int) -> str | list[Message] | Observation:
        self.digit = random.Random(seed).randrange(10)
        self.row = row
        return row["prompt"]

    def step(self, message: Message) -> Step:
        assert message["role"] == "assistant"
        self.turn += 1
        found = re.search(r"\d", message["content"])
        guess = int(found[0]) if found else None
        if guess == self.digit:
            return Step(reward=1.0 / self.turn, components={"turns": 1.0}, done=True)
        said = "a digit!" if guess is None else "larger" if guess < self.digit else "smaller"
        done = self.turn == self.most
        return Step(f"{said} ({self.turn})", -0.1, {"turns": 1.0}, done=done)

    def close(self) -> None:
        self.closed += 1


class Slowly:
    """An environment whose answers are waited for."""

    def __init__(self, inner: Any, wait: Callable[[], Any] = lambda: asyncio.sleep(0)) -> None:
        self.inner, self.wait = inner, wait

    async def reset(self, row: Mapping[str, Any], seed: int) -> Any:
        await self.wait()
        return self.inner.reset(row, seed)

    async def step(self, message: Message) -> Step:
        await self.wait()
        return self.inner.step(message)

    async def close(self) -> None:
        self.inner.close()


class Worlds(EnvironmentFactory):
    """Environments of one kind, which it remembers.

    Args:
        kind: makes the k-th.
    """

    components = ("turns",)

    def __init__(self, kind: Callable[[int], Any] = lambda k: Guess(), of: Grader | None = None) -> None:
        super().__init__(of or grader())
        self.kind, self.made = kind, []  # type: ignore[var-annotated]

    def make(self, prompt: Prompt, n: int) -> Sequence[Environment]:
        new = [self.kind(len(self.made) + k) for k in range(n)]
        self.made += new
        return new
