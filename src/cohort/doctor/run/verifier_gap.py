"""The verifier accepts what a stronger judge does not."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.record import Record
from cohort.signals.verification import oracle_gap

MAX_GAP = 0.1


@diagnosis(
    Try("read the completions that are accepted, and take what they share out of the reward", settings=("reward",)),
    Try("let rules judge first, and ask the model only of what may be an answer", methods=("math-verifiers",)),
    cause=True,
)
def verifier_gap(record: Record) -> Seen | None:
    """The run's verifier accepts more than a stronger judge that watches it does.

    Threshold: `oracle/gap`, mean accuracy less the mean of the reward that watches, above 0.1 in a step; an alarm where it
    is so in the last step too.
    Meaning: the policy has found answers that the verifier takes for right. What accuracy gains from then on is not real.
    Source: arXiv:2505.22203
    """
    gap = record.series("oracle/gap")
    values = gap.values.tolist()
    _, first = oracle_gap(values, [0.0] * len(values), MAX_GAP)
    if first is None:
        return None
    step, last = int(gap.steps[first]), int(gap.steps[-1])
    text = (
        f"the gap first exceeds {MAX_GAP:g} at step {step} ({values[first]:.3g}); at step {last} it is {values[-1]:.3g}"
    )
    numbers = {"first": values[first], "last": values[-1]}
    evidence = Evidence(text, (step, last), numbers, record.metric("oracle/gap"))
    return Seen(
        "alarm" if values[-1] > MAX_GAP else "warning",
        "the verifier accepts what the stronger judge does not",
        (evidence,),
    )
