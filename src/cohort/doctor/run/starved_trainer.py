"""A trainer that waits for rollouts."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import Record


@diagnosis(
    Try("sample on more workers, or servers", settings=("workers", "engine", "engine_url")),
    Try("draw fewer tokens a step", settings=("max_new_tokens", "group_size", "prompts_per_step")),
    Try("give slow environments more processes", settings=("environment_processes",)),
)
def starved_trainer(record: Record) -> Seen | None:
    """Sampling runs ahead of the trainer, and the trainer still waits for rollouts.

    Threshold: over the last steps (a fifth of them, of a short run a quarter) the trainer waits for a quarter of the step's
    time; a warning from a half.
    Meaning: sampling is the longer stage, and the step takes as long as it does. What the update costs is hidden behind it;
    more or faster samplers shorten the step, a faster trainer does not.
    Source: measured here; on balancing both stages see AReaL, arXiv:2505.24298
    """
    waited, step = record.series_or_none("time/wait_rollouts", at_least=3), record.series_or_none("time/step")
    if waited is None or step is None or step.end <= 0 or (share := waited.end / step.end) < 0.25:
        return None
    first, last = waited.last
    text = f"{waited.end:.3g} s of the {step.end:.3g} s of steps {first}-{last} were spent waiting for rollouts"
    return Seen(
        "warning" if share >= 0.5 else "note",
        f"the trainer waits for rollouts during {percent(share)} of the step",
        (Evidence(text, (first, last), {"share": share}, record.metric("time/wait_rollouts")),),
    )
