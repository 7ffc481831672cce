"""Finished rollouts that grow old in the queue."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.record import Record


@diagnosis(
    Try("run fewer steps ahead: the trainer waits for nothing", settings=("ahead",)),
    Try("fewer workers, or a faster update", settings=("workers", "updates", "epochs")),
    Try("trust regions that hold at larger distances", methods=("r2vpo", "etr")),
)
def stale_queue(record: Record) -> Seen | None:
    """Rollouts of further steps are finished before a step begins, and are older than they need be when they are trained on.

    Threshold: where `ahead` is 2 or more, over the last steps (a fifth of them, of a short run a quarter) two steps' groups or
    more are finished and wait when a step begins, and tokens have nine tenths of the age that `ahead` allows, in the mean. An
    alarm where a token is older than `ahead`.
    Meaning: the samplers are faster than the trainer, and all that running so far ahead gains is age: the same speed is there
    at a smaller `ahead`, with rollouts nearer to the policy.
    Source: measured here; on staleness in asynchronous training see AReaL, arXiv:2505.24298
    """
    age, oldest = record.series_or_none("rollouts/age_mean", at_least=3), record.series_or_none("rollouts/age_max")
    ahead, depth = record.config.get("ahead"), record.series_or_none("queue/depth", at_least=3)
    if age is None or not isinstance(ahead, int):
        return None
    if oldest is not None and (most := float(oldest.values.max())) > ahead:
        beyond = oldest.steps[oldest.values > ahead]
        text = f"tokens up to {most:g} steps old in {len(beyond)} step(s), with ahead = {ahead}"
        evidence = Evidence(text, (int(beyond[0]),), {"oldest": most}, record.metric("rollouts/age_max"))
        return Seen("alarm", "rollouts are older than `ahead` allows", (evidence,))
    groups = max(1, int(record.config.get("prompts_per_step") or 1))
    if depth is None or ahead < 2 or age.end < 0.9 * ahead or depth.end < 2 * groups:
        return None
    first, last = depth.last
    waiting = f"{depth.end:.3g} groups were finished when a step of {groups} began, in steps {first}-{last}"
    old = f"{age.end:.2g} steps old in the mean in steps {age.last[0]}-{age.last[1]}, with ahead = {ahead}"
    return Seen(
        "warning",
        "finished rollouts wait until they are stale",
        (
            Evidence(waiting, (first, last), {"depth": depth.end}, record.metric("queue/depth")),
            Evidence(old, age.last, {"age": age.end}, record.metric("rollouts/age_mean")),
        ),
    )
