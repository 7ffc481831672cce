"""The distribution of the importance ratio."""

from __future__ import annotations

import numpy as np

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.ratios import COLUMNS, ratios
from cohort.doctor.record import Record


@diagnosis(
    Try("train on rollouts fewer times, or in fewer pieces", settings=("epochs", "updates")),
    Try("smaller steps", settings=("lr",)),
    Try("a ratio of the whole sequence, which averages tokens", methods=("gspo",)),
    Try("bounds on both sides of the ratio", methods=("gbpo", "bapo")),
    columns=COLUMNS,
)
def ratio_shape(record: Record) -> Seen | None:
    """Importance ratios lie off 1 in the mean, or have a heavy tail.

    Threshold: under the sampling policy the ratio's mean is 1 whatever the policy, so a mean that is off by more than 0.1
    over the last steps shows that it rests on rare tokens; or a largest ratio above 10 in a third of the steps, where a
    single token weighs as much as ten (dual clipping cuts at 3, arXiv:1912.09729). With one update a step all ratios
    are 1.
    Meaning: the gradient is carried by few tokens on which sampler and policy disagree; the estimate is noisy and can
    jump.
    Source: PPO, arXiv:1707.06347; dual clipping, arXiv:1912.09729; the bounds are our choice
    """
    mean, largest = record.series_or_none("ratio/mean", 5), record.series_or_none("ratio/max", 5)
    if mean is not None and largest is not None:
        steps, off, tail = [int(s) for s in mean.steps[-mean.window :]], mean.end - 1, largest.values[-largest.window :]
        where = record.metric("ratio/mean")
    else:
        steps, values = ratios(record)
        steps, values = steps[-5:], values[-5:]
        off, tail = float(np.concatenate(values).mean()) - 1, np.array([each.max() for each in values])
        where = record.at(steps[-1])
    heavy = float((tail > 10).mean()) >= 1 / 3
    if abs(off) <= 0.1 and not heavy:
        return None
    parts = [f"mean {1 + off:.3g}"] * (abs(off) > 0.1) + [f"largest {tail.max():.3g}"] * heavy
    text = f"steps {steps[0]}-{steps[-1]}: mean ratio {1 + off:.3g}; largest of a step {tail.min():.3g} to {tail.max():.3g}"
    return Seen(
        "warning",
        f"importance ratios are {'off centre' if abs(off) > 0.1 else 'heavy-tailed'} ({', '.join(parts)})",
        (Evidence(text, tuple(steps), {"mean": 1 + off, "largest": float(tail.max())}, where),),
    )
