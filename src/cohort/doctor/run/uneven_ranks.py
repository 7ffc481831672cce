"""Ranks that wait for each other."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import Record


@diagnosis(
    Try("more rollouts an update, so that long ones spread", settings=("prompts_per_step", "group_size", "updates")),
    Try("shorter packs, which are dealt more evenly", settings=("micro_tokens",)),
    Try("bound the longest rollouts", settings=("max_new_tokens",)),
)
def uneven_ranks(record: Record) -> Seen | None:
    """The ranks of the trainer have unequal shares of the tokens, or wait for each other for long.

    Threshold: over the last steps (a fifth of them, of a short run a quarter) the ranks wait for a fifth of the update's time,
    a warning from two fifths; where that is not known, the rank with the most tokens has 1.3 times the mean, a warning from
    1.6 times.
    Meaning: an update ends when its slowest rank does. Sequences are dealt by token count, so what is left are few sequences
    of very unequal length, fewer groups than ranks, or machines of unequal speed.
    Source: measured here; the thresholds are our choice
    """
    uneven = record.series_or_none("ranks/imbalance", at_least=3)
    idle = record.series_or_none("ranks/idle", at_least=3)
    evidence, share, most = [], idle.end if idle is not None else 0.0, uneven.end if uneven is not None else 1.0
    if idle is not None and share >= 0.2:
        first, last = idle.last
        text = f"{percent(share)} of the update's time in steps {first}-{last}"
        evidence.append(Evidence(text, (first, last), {"idle": share}, record.metric("ranks/idle")))
    if uneven is not None and most >= 1.3 and (evidence or idle is None):
        first, last = uneven.last
        text = f"the rank with the most tokens had {most:.2f} times the mean in steps {first}-{last}"
        evidence.append(Evidence(text, (first, last), {"imbalance": most}, record.metric("ranks/imbalance")))
    if not evidence:
        return None
    severe = share >= 0.4 if idle is not None else most >= 1.6
    what = f"the ranks wait for each other during {percent(share)} of the update" if share else "tokens lie unevenly"
    return Seen("warning" if severe else "note", what, tuple(evidence))
