"""Environments that fail."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import Record


@diagnosis(
    Try(
        "read what failed: the column `error` of the rollouts, and the marks `failed` in the viewer",
        settings=("environment",),
    ),
    Try(
        "give slow environments more time, or more processes", settings=("environment_timeout", "environment_processes")
    ),
    Try("draw groups again that failures left too small", settings=("failed_episodes",)),
    cause=True,
)
def failing_environments(record: Record) -> Seen | None:
    """Episodes are lost since their environment failed, did not answer in time, or died.

    Threshold: 2 % of the episodes of the last steps (a fifth of them, of a short run a quarter), an alarm from 20 %.
    Meaning: their rollouts leave their groups. If hard tasks fail more often than easy ones, what is left is not what was
    asked for, and the accuracy that is shown is too high.
    Source: measured here; the shares are our choice
    """
    failed = record.series_or_none("episode/failed", at_least=3)
    if failed is None or failed.end < 0.02:
        return None
    first, last = failed.last
    text = f"{percent(failed.end)} of the episodes of steps {first}-{last} failed"
    return Seen(
        "alarm" if failed.end >= 0.2 else "warning",
        f"the environments of {percent(failed.end)} of the episodes fail",
        (Evidence(text, (first, last), {"share": failed.end}, record.metric("episode/failed")),),
    )
