"""Wrong answers that are as likely as right ones."""

from __future__ import annotations

import numpy as np

from cohort.doctor.finding import Evidence, Missing, Seen, Try, diagnosis
from cohort.doctor.measures import auc, percent
from cohort.doctor.record import Record, Rollouts


@diagnosis(
    Try("rewards that make right answers likelier than wrong ones", methods=("capo-calibration",)),
    Try("smaller steps where answers disagree", methods=("seed-grpo",)),
    Try("sample hotter", settings=("temperature",)),
    columns=("accuracy", "logp_mean", "mask", "sampler_logp"),
)
def overconfidence(record: Record) -> Seen | None:
    """The policy's confidence no longer tells right answers from wrong ones, and the wrong ones are certain.

    Threshold: over the last sampled steps the area under the ROC curve of a rollout's mean log-probability against its
    correctness is under 0.6, it has fallen by 0.1 or more from the first sampled steps, and wrong rollouts have a
    geometric mean probability of 80 % a token or more. Each needs 50 right and 50 wrong rollouts, for a standard error
    near 0.06.
    Meaning: likelihood can no longer be used to pick or weigh answers (best of n, weighted voting, abstaining), and
    confident mistakes are rarely sampled differently, so that they are hard to unlearn.
    Source: CAPO, arXiv:2604.12632 (falling AUC); the thresholds are our choice
    """
    samples = record.samples("accuracy", "logp_mean", at_least=6)
    third = max(2, len(samples) // 3)
    before, after = _area(samples[:third]), _area(samples[-third:])
    if before is None or after is None:
        raise Missing("needs 50 right and 50 wrong rollouts at the beginning and at the end")
    if not (after[0] < 0.6 and before[0] - after[0] >= 0.1 and after[1] >= 0.8):
        return None
    steps = tuple(each.step for each in samples[-third:])
    text = (
        f"area under the ROC curve {before[0]:.2f} at steps {samples[0].step}-{samples[third - 1].step}, {after[0]:.2f} at "
        f"steps {steps[0]}-{steps[-1]}; tokens of wrong rollouts have a probability of {percent(after[1])}"
    )
    return Seen(
        "warning",
        f"wrong answers are as confident as right ones (AUC {after[0]:.2f})",
        (Evidence(text, steps, {"before": before[0], "after": after[0], "wrong": after[1]}, record.at(steps[-1])),),
    )


def _area(samples: list[Rollouts]) -> tuple[float, float] | None:
    """(area under the ROC curve, geometric mean probability a token of wrong rollouts), or None if there are too few."""
    logp = np.concatenate([each.numbers("logp_mean") for each in samples])
    right = np.concatenate([each.numbers("accuracy") for each in samples])
    known = ~np.isnan(logp)
    logp, right = logp[known], right[known]
    if min((right > 0.5).sum(), (right <= 0.5).sum()) < 50:
        return None
    return auc(logp, right), float(np.exp(logp[right <= 0.5].mean()))
