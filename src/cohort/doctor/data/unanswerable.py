"""Rows that cannot be answered."""

from __future__ import annotations

from cohort.doctor.dataset import Data, named
from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.signals.answers import is_missing

_NONE = {"", "none", "null", "nan", "n/a", "na", "unknown", "unanswerable", "no answer", "?", "-", "tbd", "todo"}


@diagnosis(
    Try("leave these rows out, or name the column that holds the answers", settings=("data", "answer_field")),
    Try("a verifier that can read such answers", settings=("reward",)),
)
def unanswerable(data: Data) -> Seen | None:
    """Rows have no gold answer, or one that the verifier cannot read.

    Threshold: any row; an alarm from 5 %. Without an answer: empty, null, or words that stand for none ("unknown", "n/a",
    "?"). Unreadable: the verifier has no verdict on any way of writing the gold answer.
    Meaning: no rollout can be right there: groups of these prompts are all wrong, or not rewarded at all, and are paid for.
    Source: measured here
    """
    empty = [
        i for i, answer in enumerate(data.answers(), 1) if is_missing(answer) or str(answer).strip().casefold() in _NONE
    ]
    unread = [each.row for each in data.verdicts or () if not each.gold]
    unread = [row for row in unread if row not in set(empty)]
    if not empty and not unread:
        return None
    evidence = []
    if empty:
        text = f"{len(empty)} of {len(data.rows)} rows have no answer: {named(empty, data.rows)}"
        evidence.append(Evidence(text, (), {"empty": float(len(empty))}))
    if unread:
        which = f"{len(unread)} of {len(data.verdicts or ())} rows: {named(unread, data.rows)}"
        text = f"`{data.verifier}` cannot read the answers of {which}"
        evidence.append(Evidence(text, (), {"unread": float(len(unread))}))
    share = max(len(empty) / len(data.rows), len(unread) / max(1, len(data.verdicts or ())))
    return Seen(
        "alarm" if share >= 0.05 else "warning", f"{percent(share)} of the rows cannot be answered", tuple(evidence)
    )
