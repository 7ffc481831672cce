"""A verifier that marks gold answers wrong."""

from __future__ import annotations

from cohort.doctor.dataset import RENDERINGS, Data, named
from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent


@diagnosis(
    Try(
        "look at such rows with `cohort score`; another verifier, or answers in a form that it reads",
        settings=("reward",),
    ),
    Try("correct these rows, or leave them out", settings=("data",)),
    Try("the value from which a rollout counts as correct", settings=("correct_at",)),
)
def rejects_gold(data: Data) -> Seen | None:
    """The verifier marks the data's own gold answers wrong.

    Threshold: any row whose gold answer is rejected however it is written (plain, in a sentence, boxed, in answer tags, after
    ####, and the row's solution where there is one); an alarm from 5 %. Rows on which the verifier has no verdict at
    all are counted as unanswerable instead.
    Meaning: right rollouts are punished on these prompts, and accuracy cannot reach 100 %.
    Source: measured here
    """
    verdicts = [each for each in data.checked() if each.gold]
    rejected = [each.row for each in verdicts if max(each.gold) < data.correct_at]
    if not rejected:
        return None
    share = len(rejected) / len(verdicts)
    which = f"{len(rejected)} of {len(verdicts)} rows: {named(rejected, data.rows)}"
    text = f"`{data.verifier}` rejects the gold answers of {which}"
    accepted = {
        name: sum((each.values.get(name) or 0.0) >= data.correct_at for each in verdicts) / len(verdicts)
        for name, _ in RENDERINGS
    }
    ways = "accepted by way of writing: " + ", ".join(f"{name} {percent(value)}" for name, value in accepted.items())
    return Seen(
        "alarm" if share >= 0.05 else "warning",
        f"the verifier rejects {percent(share)} of its own gold answers",
        (Evidence(text, (), {"share": share}), Evidence(ways, (), accepted)),
    )
