"""Rollouts that run into the token limit."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import Record


@diagnosis(
    Try("allow longer rollouts", settings=("max_new_tokens",)),
    Try("punish rollouts near the limit softly instead of cutting them off", methods=("dapo",)),
    Try("teach with a budget that grows or shrinks over the run", methods=("curriculum-length", "brpo")),
)
def truncation(record: Record) -> Seen | None:
    """Many rollouts run into the token limit before they have finished.

    Threshold: 10 % over the last steps (a fifth of them, of a short run a quarter), an alarm from 30 %. A rollout that
    is cut is nearly always marked wrong, so that this share of the rewards says nothing about the answers; at 10 % it
    is of the size of the differences that groups of 8 are to show. Healthy runs of the embedded task have none.
    Where an environment or tools answer, `episodes-cut` says by which limit.
    Meaning: reasoning that may be right is punished for its length, and what the policy learns is to stop early.
    Source: DAPO, arXiv:2503.14476 (overlong rollouts); the share is our choice
    """
    if record.answered:
        return None  # episodes-cut tells by which limit
    cut = record.series("completion/truncated", at_least=3)
    if cut.end < 0.1:
        return None
    first, last = cut.last
    limit = record.config.get("max_new_tokens")
    at = f" of {limit} tokens" if limit else ""
    text = f"{percent(cut.end)} of the rollouts of steps {first}-{last} reached the limit{at}"
    length = record.series_or_none("completion/length_mean")
    if length is not None:
        text += f"; they have {length.end:.0f} tokens in the mean"
    return Seen(
        "alarm" if cut.end >= 0.3 else "warning",
        f"{percent(cut.end)} of the rollouts are cut off at the limit{at}",
        (Evidence(text, (first, last), {"share": cut.end}, record.metric("completion/truncated")),),
    )
