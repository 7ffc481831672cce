"""A verifier that marks wrong answers right."""

from __future__ import annotations

from cohort.doctor.dataset import NOTHING, SWAPPED, Data, named
from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent


@diagnosis(
    Try("a stricter verifier; look at such rows with `cohort score`", settings=("reward",)),
    Try("name the reward that says what is correct", settings=("accuracy", "correct_at")),
)
def accepts_wrong(data: Data) -> Seen | None:
    """The verifier marks an empty completion right, or the gold answer of another row.

    Threshold: 1 % of the rows with an empty completion, 5 % with another row's answer (which may be right by chance for
    tasks of several right answers); an alarm from 10 %.
    Meaning: there is a way to be rewarded without solving anything, and training will find it.
    Source: measured here
    """
    verdicts = data.checked()
    evidence, worst = [], 0.0
    for name, what, bound in ((NOTHING, "an empty completion", 0.01), (SWAPPED, "another row's answer", 0.05)):
        asked = [each for each in verdicts if each.values.get(name) is not None]
        wrong = [each.row for each in asked if (each.values[name] or 0.0) >= data.correct_at]
        share = len(wrong) / max(1, len(asked))
        if wrong and share >= bound:
            text = f"`{data.verifier}` accepts {what} in {len(wrong)} of {len(asked)} rows: {named(wrong, data.rows)}"
            evidence.append(Evidence(text, (), {"share": share}))
            worst = max(worst, share)
    if not evidence:
        return None
    return Seen(
        "alarm" if worst >= 0.1 else "warning",
        f"the verifier accepts wrong answers in {percent(worst)} of the rows",
        tuple(evidence),
    )
