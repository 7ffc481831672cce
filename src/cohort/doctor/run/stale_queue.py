"""Finished rollouts that grow old in the queue."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.record import FEW, Record


@diagnosis(
    Try("fewer samplers, or a faster update", settings=("engine", "updates", "epochs")),
    Try("trust regions that hold at larger distances", methods=("r2vpo", "etr")),
)
def stale_queue(record: Record) -> Seen | None:
    """Finished rollouts wait in the queue, and are as old as they may be when they are trained on.

    Threshold: where `ahead` is 2 or more, tokens of the last steps (a fifth of them, of a short run a quarter) have nine
    tenths of that age in the mean while a whole step's groups wait; or the queue has grown to twice what it was by more than
    noise (three standard errors), to a whole step's groups or more. An alarm where a token is older than `ahead`.
    Meaning: the samplers are faster than the trainer, and all that running ahead gains is age: the same speed is there at a
    smaller `ahead`, with rollouts nearer to the policy.
    Source: measured here; on staleness in asynchronous training see AReaL, arXiv:2505.24298
    """
    age, oldest = record.series_or_none("rollouts/age_mean", at_least=3), record.series_or_none("rollouts/age_max")
    ahead = record.config.get("ahead")
    if age is None or not isinstance(ahead, int):
        return None
    evidence, (first, last) = [], age.last
    worst = oldest is not None and float(oldest.values.max()) > ahead
    if oldest is not None and worst:
        beyond, most = oldest.steps[oldest.values > ahead], float(oldest.values.max())
        text = f"tokens up to {most:g} steps old in {len(beyond)} step(s), with ahead = {ahead}"
        evidence.append(Evidence(text, (int(beyond[0]),), {"oldest": most}, record.metric("rollouts/age_max")))
    depth = record.series_or_none("queue/depth", at_least=3)
    groups = max(1, int(record.config.get("prompts_per_step") or 1))
    if depth is not None and depth.end >= groups:
        if ahead >= 2 and age.end >= 0.9 * ahead:
            text = f"{age.end:.2g} steps old in the mean in steps {first}-{last}, with ahead = {ahead}"
            evidence.append(Evidence(text, (first, last), {"age": age.end}, record.metric("rollouts/age_mean")))
        if len(depth) >= FEW and depth.rises() and depth.end >= 2 * depth.start:
            text = f"{depth.start:.3g} groups waited at the beginning, {depth.end:.3g} in steps {first}-{last}"
            evidence.append(Evidence(text, (first, last), {"depth": depth.end}, record.metric("queue/depth")))
    if not evidence:
        return None
    what = "rollouts are older than `ahead` allows" if worst else "finished rollouts wait until they are stale"
    return Seen("alarm" if worst else "warning", what, tuple(evidence))
