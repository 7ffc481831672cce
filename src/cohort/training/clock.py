"""Seconds spent in the stages of a step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType


class Clock:
    """Seconds spent in the stages of a step.

    Args:
        sampling, reward: seconds spent so far in sampling and in reward functions, which lie inside other stages.
        before: metric -> seconds of what the step had to wait for.
        idle: seconds of sampling so far in which nothing was drawn; None where nothing can have to be waited for.
    """

    def __init__(
        self,
        sampling: Callable[[], float],
        reward: Callable[[], float],
        before: Mapping[str, float] = MappingProxyType({}),
        idle: Callable[[], float] | None = None,
    ) -> None:
        self.sampling, self.reward, self.before, self.idle = sampling, reward, dict(before), idle
        self.start = sampling(), reward(), idle() if idle else 0.0
        self.began = self.last = time.perf_counter()
        self.marks: dict[str, float] = {}

    def mark(self, name: str) -> None:
        """The stage that ends now."""
        now = time.perf_counter()
        self.marks[name] = now - self.last
        self.last = now

    def times(self) -> dict[str, float]:
        """Metrics: seconds of sampling, rewards, scoring, the update, and the whole step."""
        sampling, reward = self.sampling() - self.start[0], self.reward() - self.start[1]
        return {
            **self.before,
            "time/sample": sampling,
            **({"time/idle": self.idle() - self.start[2]} if self.idle else {}),
            "time/reward": reward,
            "time/score": max(0.0, self.marks.get("score", 0.0) - sampling - reward),
            "time/update": self.marks.get("update", 0.0),
            "time/step": time.perf_counter() - self.began,
        }
