"""One prompt with several gold answers."""

from __future__ import annotations

from collections import defaultdict

from cohort.doctor.dataset import Data, named
from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.signals.answers import gold_key


@diagnosis(Try("keep the right one of each, or leave such prompts out", settings=("data",)))
def contradictory_answers(data: Data) -> Seen | None:
    """The same prompt stands in the data with different gold answers.

    Threshold: any; an alarm from 1 % of the rows. Prompts and answers are compared without regard to case and spacing,
    and numbers by their value.
    `cohort train` keeps the first row of a prompt.
    Meaning: at most one of them is right, and a right rollout is punished where the wrong one is kept.
    Source: measured here
    """
    answers: dict[str, dict[str, int]] = defaultdict(dict)
    for i, (prompt, answer) in enumerate(zip(data.normal, data.answers(), strict=True), 1):
        answers[prompt].setdefault(gold_key(answer), i)
    rows = [i for found in answers.values() if len(found) > 1 for i in found.values()]
    if not rows:
        return None
    share = len(rows) / len(data.rows)
    text = f"{len(rows)} rows give a prompt another answer than others do: {named(rows, data.rows)}"
    return Seen(
        "alarm" if share >= 0.01 else "warning",
        f"{percent(share)} of the rows contradict each other",
        (Evidence(text, (), {"rows": float(len(rows))}),),
    )
