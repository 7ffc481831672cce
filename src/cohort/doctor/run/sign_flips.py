"""Advantages whose sign hangs on a noisy baseline."""

from __future__ import annotations

from math import erf, sqrt

import numpy as np

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import Floats, Record, Rollouts


@diagnosis(
    Try("take the median of one more rollout for the baseline", methods=("mc-grpo",)),
    Try("draw more rollouts of each prompt", settings=("group_size",)),
    Try("remember how good a prompt is over steps, instead of in its group", methods=("spo-single-stream",)),
    columns=("group", "reward"),
)
def sign_flips(record: Record) -> Seen | None:
    """In small groups the mean reward is so noisy that it turns the sign of some advantages round.

    Threshold: in groups of 6 or fewer, 15 % of the advantages are expected to have the wrong sign (alarm: 25 %). A
    rollout's sign is that of its reward less the mean of the G - 1 others, whose error is sigma / sqrt(G - 1), with the
    group's own variance drawn towards that of all groups by two degrees of freedom; the chance that the true mean lies
    on the other side is Phi(-|r - mean| sqrt(G - 1) / sigma). Rewards at either end of the scale cannot flip, so rewards
    of 0 and 1 never do. Graded rewards that are normal flip in 25 % of cases for G = 2, 17 % for G = 4, 12 % for G = 8
    and 8 % for G = 16 (arccos(sqrt(1 - 1/G)) / pi): 15 % lies between 4 and 8.
    Meaning: good rollouts are pushed down and bad ones up, by luck of who else was drawn; learning is slower and less
    stable than the rewards would allow.
    Source: MC-GRPO, arXiv:2601.22582; the estimate of the rate is ours
    """
    samples = record.recent("group", "reward")
    if not record.drawn:
        return None
    sizes = np.concatenate([[len(rows) for rows in each.groups] for each in samples])
    low = min(float(np.nanmin(each.numbers("reward"))) for each in samples)
    high = max(float(np.nanmax(each.numbers("reward"))) for each in samples)
    chances = np.concatenate([_chances(each, low, high) for each in samples])
    if len(chances) < 20:
        return None
    rate = float(chances.mean())
    size = float(np.median(sizes))
    if rate < 0.15 or size > 6:
        return None
    steps = tuple(each.step for each in samples)
    text = (
        f"rewards less the mean of {size - 1:g} others: {percent(rate)} of {len(chances)} signs are expected to be wrong "
        f"(steps {steps[0]}-{steps[-1]})"
    )
    return Seen(
        "alarm" if rate >= 0.25 else "warning",
        f"in groups of {size:g}, about {percent(rate)} of the advantages have the wrong sign",
        (Evidence(text, steps, {"rate": rate, "group_size": size}, record.at(steps[-1])),),
    )


def _chances(rollouts: Rollouts, low: float, high: float) -> Floats:
    """For each rollout of a group with different rewards, the chance that its advantage has the wrong sign."""
    reward = rollouts.numbers("reward")
    mixed = [rows for rows in rollouts.groups if len(rows) > 1 and np.ptp(reward[rows]) > 0]
    if not mixed:
        return np.empty(0)
    freedom = sum(len(rows) - 1 for rows in mixed)
    squares = [float(((reward[rows] - reward[rows].mean()) ** 2).sum()) for rows in mixed]
    pooled = sum(squares) / freedom
    out = []
    for rows, own in zip(mixed, squares, strict=True):
        sigma = sqrt((own + 2 * pooled) / (len(rows) + 1))
        for value in reward[rows]:
            others = (reward[rows].sum() - value) / (len(rows) - 1)
            distance = abs(value - others) * sqrt(len(rows) - 1) / sigma
            out.append(0.0 if value in (low, high) else 0.5 * (1 - erf(distance / sqrt(2))))
    return np.array(out)
