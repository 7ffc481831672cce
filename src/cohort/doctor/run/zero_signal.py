"""Groups whose rollouts are all rewarded alike."""

from __future__ import annotations

import numpy as np

from cohort.doctor.finding import Evidence, Missing, Seen, Severity, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import Record


@diagnosis(
    Try("leave such groups out and draw others in their place", methods=("dapo",)),
    Try("learn from groups that are all wrong", methods=("ngrpo", "sage")),
    Try("draw more rollouts of each prompt, so that few groups are all alike", settings=("group_size",)),
    Try("take prompts that the model solves sometimes", methods=("fg-expo",), settings=("data",)),
    columns=("group", "reward", "accuracy"),
)
def zero_signal(record: Record) -> Seen | None:
    """Many groups have rollouts that are all rewarded alike, so that they teach nothing.

    Threshold: a mean share of 40 % over the last steps (a fifth of them, of a short run a quarter); an alarm from 90 %,
    where hardly anything is left to learn from. Healthy runs of the embedded task stay under 35 %; groups of two, of
    which at least half are alike whatever the accuracy, lie above 50 %. Where accuracy is above 80 % most groups are
    all right because most is learnt: a note, from 70 %.
    Meaning: their advantages are all zero. The step pays for sampling these rollouts and trains on the others only, and
    its gradient rests on fewer groups and is noisier.
    Source: DAPO, arXiv:2503.14476 (dynamic sampling); NGRPO, arXiv:2509.18851 (groups that are all wrong)
    """
    share = record.series("zero_signal_groups", at_least=5)
    # A group of one is compared with something else than its group.
    accuracy = record.series_or_none("accuracy")
    learnt = accuracy is not None and accuracy.end >= 0.8
    if share.end < (0.7 if learnt else 0.4) or record.config.get("group_size") == 1:
        return None
    first, last = share.last
    text = f"{percent(share.end)} of the groups of steps {first}-{last} are rewarded alike"
    numbers = {"share": share.end}
    right, wrong = _kinds(record)
    if right + wrong:
        text += f"; of those looked at, {right} are all right and {wrong} all wrong"
        numbers |= {"all_right": float(right), "all_wrong": float(wrong)}
    evidence = [Evidence(text, (first, last), numbers, record.metric("zero_signal_groups"))]
    size = record.config.get("group_size")
    because = ""
    if isinstance(size, int) and size <= 4 and accuracy is not None and 0.05 < accuracy.end < 0.95:
        alike = accuracy.end**size + (1 - accuracy.end) ** size
        because = f", for groups of {size} are alike by chance already"
        evidence.append(
            Evidence(
                f"at an accuracy of {percent(accuracy.end)}, groups of {size} are all right or all wrong by chance in "
                f"{percent(alike)} of cases; groups of 8 would be in {percent(accuracy.end**8 + (1 - accuracy.end) ** 8)}",
                (first, last),
                {"by_chance": alike},
                record.metric("accuracy"),
            )
        )
    severity: Severity = "note" if learnt else "alarm" if share.end >= 0.9 else "warning"
    return Seen(severity, f"{percent(share.end)} of the groups carry no signal{because}", tuple(evidence))


def _kinds(record: Record) -> tuple[int, int]:
    """Numbers of groups that are all right, and all wrong, in the last rollouts that are stored."""
    right = wrong = 0
    try:
        recent = record.recent("group", "accuracy", "reward")
    except Missing:
        return 0, 0
    for rollouts in recent:
        accuracy, reward = rollouts.numbers("accuracy"), rollouts.numbers("reward")
        for rows in rollouts.groups:
            if np.ptp(reward[rows]) == 0:
                right += bool(accuracy[rows].min() == 1)
                wrong += bool(accuracy[rows].max() == 0)
    return right, wrong
