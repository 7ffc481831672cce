"""Completions that shrink without getting better."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import FEW, Record


@diagnosis(
    Try("reward shortness only where the answer is right", methods=("gdpo", "grpo-lambda")),
    Try("weigh rewards of length less, or leave them out", settings=("reward",)),
    Try("weigh tokens alike, so that short rollouts are not favoured", methods=("dr-grpo", "dapo")),
)
def length_collapse(record: Record) -> Seen | None:
    """Completions have become much shorter, and accuracy has not risen.

    Threshold: the end (a fifth of the steps, of a short run a quarter) lies under 60 % of the beginning and accuracy
    has not risen by more than noise (three standard errors). Shorter and better is no disease. An alarm where accuracy
    has fallen.
    Meaning: the policy no longer works its answers out. Usual causes are a reward that pays for shortness and
    normalisation by length, which gives short right rollouts more gradient a token.
    Source: Dr. GRPO, arXiv:2503.20783 (bias of length); GRPO-lambda, arXiv:2505.18086 (penalties of length collapse
    accuracy); the factor is measured here
    """
    length = record.series("completion/length_mean", at_least=FEW)
    accuracy = record.series_or_none("accuracy", at_least=FEW)
    if not (length.end < 0.6 * length.start and length.falls()) or (accuracy is not None and accuracy.rises()):
        return None
    first, last = length.last
    evidence = [
        Evidence(
            f"{length.start:.1f} tokens at the beginning, {length.end:.1f} at steps {first}-{last}",
            (first, last),
            {"start": length.start, "end": length.end},
            record.metric("completion/length_mean"),
        )
    ]
    if accuracy is not None:
        evidence.append(
            Evidence(
                f"accuracy {percent(accuracy.start)} at the beginning, {percent(accuracy.end)} at the end",
                (first, last),
                {"start": accuracy.start, "end": accuracy.end},
                record.metric("accuracy"),
            )
        )
    worse = accuracy is not None and accuracy.falls()
    what = f"completions shrank to {percent(length.end / length.start)} of their length without getting better"
    return Seen("alarm" if worse else "warning", what, tuple(evidence))
