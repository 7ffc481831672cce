"""Sampler and trainer drift apart."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.record import FEW, Record

# Metric -> least growth, the mean difference (nats) below which it says nothing, and that from which it is an alarm.
BOUNDS = {"mismatch/engine": (3.0, 1e-4, 0.1), "mismatch": (3.0, 1e-4, 0.1), "mismatch/staleness": (2.0, 0.02, 0.2)}


@diagnosis(
    Try("where the engine's part grows: look whether all weights arrive, by sampling elsewhere", settings=("engine",)),
    Try("where the weights' part grows: smaller steps, or fewer of them", settings=("lr", "updates", "epochs")),
    Try("weigh tokens by how likely the trainer finds them", methods=("rollout-correction", "intellect-2")),
)
def diverging_mismatch(record: Record) -> Seen | None:
    """The sampling policy and the trainer's drift apart as the run goes on.

    Threshold: the end (a fifth of the steps, of a short run a quarter) lies above the beginning by more than noise (three
    standard errors), and is three times it and 1e-4 nats for the engine's part (of tokens that the newest weights drew, where
    it is not told apart), twice it and 0.02 nats for what the weights' change adds. An alarm from 0.1 and 0.2 nats.
    Meaning: where the engine's part grows, the engine does not sample with the weights that it was sent: a part of them does
    not arrive, or arrives in another type. Where the other part grows, the weights move further between drawing and use than
    they did, and corrections rest on fewer tokens.
    Source: measured here (vLLM on a CPU, which did not update an output layer that is tied to the embedding: 0, 1.1e-3,
    1.8e-3 nats in the first three steps); on its effect see arXiv:2510.26788
    """
    split = record.series_or_none("mismatch/engine") is not None
    evidence, worst = [], False
    for name in ("mismatch/engine" if split else "mismatch", "mismatch/staleness"):
        series = record.series_or_none(name, at_least=FEW)
        growth, least, alarm = BOUNDS[name]
        if series is None or not series.rises() or series.end < max(least, growth * series.start):
            continue
        first, last = series.last
        text = f"`{name}` was {series.start:.2g} nats at the beginning and is {series.end:.2g} in steps {first}-{last}"
        evidence.append(Evidence(text, (first, last), {"start": series.start, "end": series.end}, record.metric(name)))
        worst = worst or series.end >= alarm
    if not evidence:
        return None
    return Seen("alarm" if worst else "warning", "sampler and trainer drift apart", tuple(evidence))
