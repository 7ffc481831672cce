"""Sampling axis: how a rollout is drawn. A function takes requests and tools and returns rollouts, not yet scored."""

from __future__ import annotations

from collections.abc import Sequence

from cohort.axes.tools import Tools
from cohort.batch import Request, Rollout


def independent(requests: Sequence[Request], tools: Tools) -> list[Rollout]:
    """Every rollout drawn by itself from its context."""
    return tools.generate(requests)
