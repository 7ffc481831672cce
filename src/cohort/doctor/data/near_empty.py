"""Prompts that hold next to nothing."""

from __future__ import annotations

from cohort.doctor.dataset import Data, named
from cohort.doctor.finding import Evidence, Seen, Try, diagnosis


@diagnosis(
    Try("name the column that holds the question, or fill a template", settings=("prompt_field", "template")),
    Try("leave these rows out", settings=("data",)),
)
def near_empty(data: Data) -> Seen | None:
    """Prompts are empty, or much shorter than any question can be.

    Threshold: fewer than three letters or digits in the row's prompt. "2+3=" has two and is a question, so such prompts
    count only where most of the others are more than ten times as long. An alarm if one is empty, since `cohort train`
    refuses it.
    Meaning: there is nothing to answer; often the wrong column was named, or a field of the template is empty.
    Source: measured here
    """
    sizes = [sum(char.isalnum() for char in text) for text in data.prompts]
    usual = sorted(sizes)[len(sizes) // 2]
    empty = [i for i, text in enumerate(data.prompts, 1) if not text.strip()]
    short = [i for i, size in enumerate(sizes, 1) if size < 3 and usual > 10 * size and i not in set(empty)]
    if not empty and not short:
        return None
    evidence = []
    if empty:
        evidence.append(
            Evidence(f"{len(empty)} prompts are empty: {named(empty, data.rows)}", (), {"empty": float(len(empty))})
        )
    if short:
        text = f"{len(short)} prompts have fewer than 3 letters or digits, the others about {usual}: {named(short, data.rows)}"
        evidence.append(Evidence(text, (), {"short": float(len(short))}))
    what = f"{len(empty) + len(short)} prompts hold next to nothing"
    return Seen("alarm" if empty else "warning", what, tuple(evidence))
