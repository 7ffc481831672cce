"""Calls of tools that cannot be read, or that tools answer with errors."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import Record


@diagnosis(
    Try("show a call in the form that the model's template reads, in the system message", settings=("system",)),
    Try("leave turns more room: a call that a limit cuts cannot be read", settings=("turn_tokens", "max_new_tokens")),
    Try("draw at a lower temperature", settings=("temperature",)),
    cause=True,
)
def broken_calls(record: Record) -> Seen | None:
    """Many calls of tools cannot be read, or end in an error of the tool.

    Threshold: of the calls of the last steps (a fifth of them, of a short run a quarter) 10 % cannot be read, or 30 % end
    in an error, where there are 0.1 calls an episode or more; an alarm from a half of either.
    Meaning: the turn is spent on the form of the call rather than on the task. Errors of tools may be part of the task;
    calls that cannot be read never are.
    Source: measured here; the thresholds are our choice
    """
    calls = record.series_or_none("tools/calls_mean", at_least=3)
    if calls is None or calls.end < 0.1:
        return None
    broken, failed = record.series("tools/unparseable"), record.series("tools/failed")
    if broken.end < 0.1 and failed.end < 0.3:
        return None
    first, last = calls.last
    text = (
        f"of {calls.end:.3g} calls an episode in steps {first}-{last}, {percent(broken.end)} could not be read and "
        f"{percent(failed.end)} ended in an error"
    )
    worse = "tools/unparseable" if broken.end >= 0.1 else "tools/failed"
    numbers = {"unparseable": broken.end, "failed": failed.end}
    said = "cannot be read" if broken.end >= 0.1 else "end in an error"
    share = broken.end if broken.end >= 0.1 else failed.end
    return Seen(
        "alarm" if max(broken.end, failed.end) >= 0.5 else "warning",
        f"{percent(share)} of the calls of tools {said}",
        (Evidence(text, (first, last), numbers, record.metric(worse)),),
    )
