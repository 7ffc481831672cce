"""Guidance axis: what is put into the prompt.

A function takes the step's requests and the tools of the loop, has them drawn and scored (`tools.draw`) in whatever
dress it likes, and returns one scored rollout for every request, in the order of the requests.
"""

from __future__ import annotations

from collections.abc import Sequence

from cohort.types import Request, Rollout
from cohort.types.access import Tools


def none(requests: Sequence[Request], tools: Tools) -> list[Rollout]:
    """The prompts as they are."""
    return tools.draw(requests)
