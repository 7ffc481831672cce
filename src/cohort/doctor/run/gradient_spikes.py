"""Gradient norms that jump."""

from __future__ import annotations

import numpy as np

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import running_median
from cohort.doctor.record import FEW, Record


@diagnosis(
    Try("clip the gradient harder", settings=("grad_clip",)),
    Try("smaller steps, or a warm-up", settings=("lr", "warmup")),
    Try("bound the weight of single tokens", methods=("gbpo", "cispo")),
    Try("penalise falls of likelihood, which precede spikes", methods=("llds",)),
)
def gradient_spikes(record: Record) -> Seen | None:
    """The gradient norm jumps far above what it was, or is not finite.

    Threshold: five times the median of the up to 20 steps before, in at least two steps of the run, or ten times in one;
    healthy runs of the embedded task stay under 2.5 times. Updates that were skipped because something was not finite are an
    alarm.
    Meaning: single batches move the weights (up to `grad_clip`) in directions of their own; often rollouts of low
    likelihood, or a bad batch. Repeated spikes precede collapse.
    Source: LLDS, arXiv:2512.04220 (gradients of unlikely rollouts); the factors are measured here
    """
    norm = record.series("grad_norm", at_least=FEW)
    skipped = record.series_or_none("skipped_updates")
    evidence = []
    if skipped is not None and skipped.values[-1] > 0:
        first = int(skipped.steps[skipped.values > 0][0])
        text = f"{skipped.values[-1]:g} update(s) skipped because loss or gradient was not finite, the first in step {first}"
        evidence.append(
            Evidence(text, (first,), {"skipped": float(skipped.values[-1])}, record.metric("skipped_updates"))
        )
    factor = norm.values / np.maximum(running_median(norm.values), 1e-12)
    # A gradient of nothing has no scale to spike from.
    factor[~np.isfinite(factor) | (norm.values < 1e-6)] = 0.0
    high = np.flatnonzero(factor > 5)
    if len(high) >= 2 or factor.max() > 10:
        worst = int(factor.argmax())
        text = (
            f"{norm.values[worst]:.3g} in step {int(norm.steps[worst])}, {factor[worst]:.1f} times the median before; "
            f"{len(high)} step(s) above five times"
        )
        steps = tuple(int(norm.steps[i]) for i in high[:20])
        evidence.append(Evidence(text, steps, {"factor": float(factor[worst])}, record.metric("grad_norm")))
    if not evidence:
        return None
    what = (
        f"gradient norms spike up to {factor.max():.0f} times their median"
        if factor.max() > 5
        else "updates are not finite"
    )
    return Seen("alarm" if len(evidence) == 2 or "skipped" in evidence[0].numbers else "warning", what, tuple(evidence))
