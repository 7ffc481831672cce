"""Pairwise comparisons of the rollouts of a group: by a judge of the user's, or by a score."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from cohort.reductions.groups import group_size, group_table
from cohort.types import Batch, Groups
from cohort.types.access import Judge, ModelAccess

JUDGE = "judge(prompts, first, second, **columns) -> for each pair 0 if the first is better, 1 if the second, else None"


def tally(count: int, pairs: Sequence[tuple[int, int]], verdicts: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """(wins, comparisons) [count] of verdicts on pairs of rows: 0 or 1 says which of the two won, all else half each."""
    wins, comparisons = torch.zeros(count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
    for pair, verdict in zip(pairs, verdicts, strict=True):
        for place, row in enumerate(pair):
            wins[row] += float(verdict == place) if verdict in (0, 1) else 0.5
            comparisons[row] += 1
    return wins, comparisons


def judged_pairs(batch: Batch, access: ModelAccess, *, judge: Judge) -> Batch:
    """A judge's verdict on every pair of a group, G (G - 1) / 2 comparisons a prompt.

    An on_scored hook: the batch with `wins` and `comparisons` [N] of each rollout in its group. An undecided comparison is
    half a win for each.
    """
    members: list[list[int]] = [[] for _ in range(batch.groups.count)]
    for row, group in enumerate(batch.groups.index.tolist()):
        members[group].append(row)
    pairs = [pair for rows in members for pair in combinations(rows, 2)]
    texts = [rollout.text for rollout in access.rollouts]
    prompts = [access.rollouts[a].prompt for a, _ in pairs]
    verdicts = access.judge(judge, prompts, first=[texts[a] for a, _ in pairs], second=[texts[b] for _, b in pairs])
    wins, comparisons = (x.to(batch.device, batch.dtype) for x in tally(batch.size, pairs, verdicts))
    return batch.with_rollouts(wins=wins, comparisons=comparisons)


def win_counts(score: Tensor, groups: Groups) -> tuple[Tensor, Tensor]:
    """(wins, comparisons) [N] of scores [N] in each group: the higher wins, equal ones win half."""
    rows, there = group_table(groups)
    mine, theirs = score[rows][:, :, None], score[rows][:, None, :]
    share = (mine > theirs).to(score.dtype) + 0.5 * (mine == theirs).to(score.dtype)
    won = torch.where(there[:, None, :], share, torch.zeros_like(share)).sum(2)
    wins = torch.zeros_like(score)
    # Nobody is compared with itself.
    wins[rows[there]] = won[there] - 0.5
    return wins, group_size(groups, score.dtype)[groups.index] - 1
