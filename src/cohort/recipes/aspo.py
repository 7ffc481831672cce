"""ASPO: Advantage Shaping Policy Optimization (Understanding Tool-Integrated Reasoning). arXiv:2508.19201.

Confidence: exact (equation 2); the bound k |A| for a negative advantage is ours, the paper meets positive ones only.

    E    = rollouts of the group that are correct and contain code
    A'_i = A_i + clip( delta (p_i - mean_E p) / mean_E L, -k |A_i|, k |A_i| )  for i in E,   A_i for all others

p_i is the position of the first code block and L_i the length, both in tokens that the policy wrote. Code earlier than
the group's mean gains, later code loses, and no correct rollout's advantage changes its sign. Added to the advantage
rather than to the reward, so that normalisation cannot blow it up: a group that is all correct stays at 0.

The first code block is where `code_pattern` (a regular expression) first matches the text; the default is the start of
a fenced block. Other methods share the name ASPO.

Defaults: delta -2, k 0.7, the paper's conservative setting (aggressive: -2.5, 0.9).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Annotated

import torch
from torch import Tensor

from cohort.methods import Method, MethodError, use
from cohort.recipes.recipe import recipe
from cohort.reductions.groups import group_sum
from cohort.types import Batch, Rollout
from cohort.types.access import ModelAccess
from cohort.types.declare import declare, hooks, needs

FENCE = "```"


def code_start(rollout: Rollout, access: ModelAccess, pattern: re.Pattern[str]) -> int:
    """Tokens of its own that the policy wrote before the first match in the text; -1 without a match."""
    found = pattern.search(rollout.text)
    if found is None:
        return -1
    # The longest run of tokens whose text ends at or before the match.
    lengths = range(len(rollout.tokens) + 1)
    before = bisect_right(lengths, found.start(), key=lambda n: len(access.decode(rollout.tokens[:n]))) - 1
    return sum(rollout.mask[:before])


def find_code(batch: Batch, access: ModelAccess, *, code_pattern: str = FENCE) -> Batch:
    """The place of the first code block, found in the text.

    Returns:
        the batch with `first_code_position` [N] int64, -1 where there is no code.
    """
    pattern = re.compile(code_pattern)
    starts = [code_start(rollout, access, pattern) for rollout in access.rollouts]
    return batch.with_rollouts(first_code_position=torch.tensor(starts, dtype=torch.int64, device=batch.device))


@needs("first_code_position")
@hooks(on_scored=find_code)
@declare(provides=("first_code_position",))
def early_code(batch: Batch, advantages: Tensor, *, delta: float = -2.0, k: float = 0.7) -> Tensor:
    """A + clip(delta (p_i - mean_E p) / mean_E L, -k |A|, k |A|) for correct rollouts with code: [N, T].

    Source: arXiv:2508.19201.
    """
    groups, lengths, place = batch.groups, batch.lengths.to(advantages.dtype), batch["first_code_position"]
    eligible = (batch["accuracy"] > 0) & (place >= 0) & (lengths > 0)
    inside, position = eligible.to(advantages.dtype), place.to(advantages.dtype)
    count = group_sum(inside, groups).clamp(min=1)
    mean_place = (group_sum(inside * position, groups) / count)[groups.index]
    mean_length = (group_sum(inside * lengths, groups) / count).clamp(min=1)[groups.index]
    shift = torch.where(eligible, delta * (position - mean_place) / mean_length, torch.zeros_like(position))
    bound = k * advantages.abs()
    return advantages + torch.minimum(torch.maximum(shift[:, None], -bound), bound)


@recipe(
    title="Understanding Tool-Integrated Reasoning",
    paper="arXiv:2508.19201",
    idea="a bounded bonus in the advantage for calling code early",
    confidence="exact",
)
def aspo(
    *, delta: Annotated[float, "(-inf, 0]"] = -2.0, k: Annotated[float, "[0, 1)"] = 0.7, code_pattern: str = FENCE
) -> Method:
    try:
        re.compile(code_pattern)
    except re.error as error:
        raise MethodError(f"'aspo': code_pattern={code_pattern!r} is no regular expression: {error}") from error
    return Method(credit=(use(early_code, delta=delta, k=k, code_pattern=code_pattern),))
