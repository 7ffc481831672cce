"""Samplers that wait for the trainer."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import Record


@diagnosis(
    Try("spend fewer passes on a step's rollouts", settings=("updates", "epochs")),
    Try("move machines from sampling to training, or use fewer of them", settings=("workers", "processes")),
    Try("draw larger groups, which the samplers have time for", settings=("group_size",)),
)
def starved_samplers(record: Record) -> Seen | None:
    """Samplers are as far ahead as they may be, and wait for the trainer.

    Threshold: over the last steps (a fifth of them, of a short run a quarter) the samplers wait for half of the step's time;
    a warning from three quarters.
    Meaning: the update is the longer stage, and the step takes as long as it does. Samplers that wait are paid for and do
    nothing; more of them shorten no step.
    Source: measured here; on balancing both stages see AReaL, arXiv:2505.24298
    """
    # A wait may be longer than a step: it also takes in evaluations and checkpoints between steps.
    waited, step = record.series_or_none("time/wait_trainer", at_least=3), record.series_or_none("time/step")
    if waited is None or step is None or step.end <= 0 or (share := waited.end / step.end) < 0.5:
        return None
    first, last = waited.last
    text = f"before a step of {first}-{last} the samplers waited {waited.end:.3g} s for the trainer; one took {step.end:.3g} s"
    return Seen(
        "warning" if share >= 0.75 else "note",
        f"the samplers wait for the trainer during {percent(min(share, 1.0))} of the step",
        (Evidence(text, (first, last), {"share": share}, record.metric("time/wait_trainer")),),
    )
