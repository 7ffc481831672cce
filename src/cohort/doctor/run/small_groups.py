"""Groups of two."""

from __future__ import annotations

import numpy as np

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import Record


@diagnosis(
    Try("take the median of one more rollout for the baseline", methods=("mc-grpo",)),
    Try("draw more rollouts of each prompt, of fewer prompts if need be", settings=("group_size", "prompts_per_step")),
    Try("remember how good a prompt is over steps, instead of in its group", methods=("spo-single-stream",)),
    columns=("group", "accuracy"),
    cause=True,
)
def small_groups(record: Record) -> Seen | None:
    """Groups have two rollouts, so that the baseline of each is a single other one.

    Threshold: a median group size of 2. The baseline of G - 1 others adds 1/(G - 1) of the reward's variance to that of
    every advantage: 100 % for two, 33 % for four, 14 % for eight. Its sign then says no more than which of the two was
    better, and groups that are both right or both wrong say nothing.
    Meaning: the gradient of each step is about twice as noisy as the same number of rollouts in large groups gives, and
    a rollout's advantage depends on a single neighbour.
    Source: MC-GRPO, arXiv:2601.22582 (accuracy falls as groups shrink from 8 to 2)
    """
    samples = record.recent("group")
    if not record.drawn:
        return None
    sizes = np.concatenate([[len(rows) for rows in each.groups] for each in samples])
    if float(np.median(sizes)) != 2:
        return None
    steps = tuple(each.step for each in samples)
    alike = [
        np.ptp(each.numbers("accuracy")[rows]) == 0
        for each in samples
        if "accuracy" in each
        for rows in each.groups
        if len(rows) == 2
    ]
    share = float(np.mean(alike)) if alike else float("nan")
    text = f"groups have {np.median(sizes):g} rollouts; in {percent(share)} of them both are right or both wrong"
    return Seen(
        "warning",
        "groups of 2: the baseline of a rollout is one other rollout",
        (Evidence(text, steps, {"group_size": 2.0, "both_alike": share}, record.at(steps[-1])),),
    )
