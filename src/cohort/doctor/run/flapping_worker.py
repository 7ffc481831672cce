"""Workers that die again and again."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.record import Record


@diagnosis(
    Try("read what the worker said when it died, in the run's output and in Ray's logs", settings=("engine",)),
    Try("leave it more memory: a process that is killed for it says nothing", settings=("cache_mb", "max_new_tokens")),
    cause=True,
)
def flapping_worker(record: Record) -> Seen | None:
    """Workers that draw rollouts die and come back again and again, or stay away.

    Threshold: three restarts or more, of which at least one in 20 steps since the first of them; or fewer workers than
    asked for in half of the last steps (a fifth of them, of a short run a quarter).
    Meaning: nothing of the run is lost, since what a dead worker was drawing is drawn again with the same seeds. It is drawn
    twice, though, and a worker that dies for a reason (memory, a machine) dies again.
    Source: measured here; the thresholds are our choice
    """
    missing = False
    evidence = []
    restarts = record.series_or_none("engine/restarts")
    if restarts is not None and restarts.values[-1] >= 3:
        first = int(restarts.steps[restarts.values > 0][0])
        span = int(restarts.steps[-1]) - first + 1
        if restarts.values[-1] >= span / 20:
            text = f"{restarts.values[-1]:g} restarts since step {first}"
            redrawn = record.series_or_none("engine/redrawn")
            text += f"; {redrawn.values[-1]:g} requests were drawn again" if redrawn is not None else ""
            numbers = {"restarts": float(restarts.values[-1])}
            evidence.append(Evidence(text, (first, int(restarts.steps[-1])), numbers, record.metric("engine/restarts")))
    alive = record.series_or_none("engine/workers", at_least=3)
    if alive is not None:
        asked = max(float(alive.values.max()), float(record.config.get("workers") or 0))
        first, last = alive.last
        recent = alive.values[-alive.window :]
        if 2 * int((recent < asked).sum()) >= len(recent):
            missing = True
            text = f"{recent.mean():.3g} of {asked:g} workers in the mean of steps {first}-{last}"
            evidence.append(
                Evidence(text, (first, last), {"workers": float(recent.mean())}, record.metric("engine/workers"))
            )
    if not evidence:
        return None
    return Seen(
        "warning", "workers are missing" if missing else "workers die and come back again and again", tuple(evidence)
    )
