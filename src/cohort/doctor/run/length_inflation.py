"""Completions that grow without getting better."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Missing, Seen, Try, diagnosis
from cohort.doctor.measures import mean_of, percent
from cohort.doctor.record import FEW, Record


@diagnosis(
    Try("divide by a constant, not by the rollout's length", methods=("dr-grpo",)),
    Try("punish rollouts near the limit softly, and weigh tokens alike", methods=("dapo",)),
    Try("reward short right answers", methods=("grpo-lambda",)),
    columns=("accuracy", "length", "mask"),
)
def length_inflation(record: Record) -> Seen | None:
    """Completions have become much longer, and accuracy has not risen.

    Threshold: the end (a fifth of the steps, of a short run a quarter) is more than 1.8 times the beginning and
    accuracy has not risen by more than noise (three standard errors). Longer and better is what reasoning looks like,
    and no disease.
    Meaning: with losses divided by the rollout's length, long wrong rollouts are punished less a token, so wrong answers
    grow; or a reward pays for length as such. Sampling gets slower and runs into the token limit.
    Source: Dr. GRPO, arXiv:2503.20783; the factor is measured here
    """
    length = record.series("completion/length_mean", at_least=FEW)
    accuracy = record.series_or_none("accuracy", at_least=FEW)
    if not (length.end > 1.8 * length.start and length.rises()) or (accuracy is not None and accuracy.rises()):
        return None
    first, last = length.last
    text = f"{length.start:.1f} tokens at the beginning, {length.end:.1f} at steps {first}-{last}"
    if accuracy is not None:
        text += f"; accuracy {percent(accuracy.start)} before, {percent(accuracy.end)} after"
    numbers = {"start": length.start, "end": length.end}
    evidence = [Evidence(text, (first, last), numbers, record.metric("completion/length_mean"))]
    right, wrong = _by_answer(record)
    if right == right and wrong == wrong:
        text = f"at the end, right rollouts have {right:.1f} tokens and wrong ones {wrong:.1f}"
        evidence.append(Evidence(text, (first, last), {"right": right, "wrong": wrong}, record.metric("length/wrong")))
    what = f"completions grew to {length.end / length.start:.1f} times their length without getting better"
    return Seen("warning", what, tuple(evidence))


def _by_answer(record: Record) -> tuple[float, float]:
    """Mean length of right and of wrong rollouts at the end; NaN where it is not known."""
    right, wrong = record.series_or_none("length/correct"), record.series_or_none("length/wrong")
    if right is not None and wrong is not None:
        return right.end, wrong.end
    try:
        recent = record.recent("accuracy", "length")
    except Missing:
        return float("nan"), float("nan")
    kinds = ((each, each.numbers("accuracy") > 0.5) for each in recent)
    pairs = [(each.numbers("length")[kind], each.numbers("length")[~kind]) for each, kind in kinds]
    return mean_of([a for a, _ in pairs]), mean_of([b for _, b in pairs])
