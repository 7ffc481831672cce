"""Guidance axis: what is put into the prompt.

A function takes the step's requests and a sampler, has them drawn and scored (`sampler.draw`) in whatever
dress it likes, and returns one scored rollout for every request, in the order of the requests.
"""

from __future__ import annotations

from collections.abc import Sequence

from cohort.types import Request, Rollout
from cohort.types.access import Sampler


def none(requests: Sequence[Request], sampler: Sampler) -> list[Rollout]:
    """The prompts as they are."""
    return sampler.draw(requests)
