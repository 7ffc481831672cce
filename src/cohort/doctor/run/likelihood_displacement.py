"""The likelihood of right answers falls."""

from __future__ import annotations

import numpy as np

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import mean_of
from cohort.doctor.record import FEW, Record, Series


@diagnosis(
    Try("penalise falls of the likelihood of rollouts worth keeping", methods=("llds",)),
    Try("protect tokens that right and wrong rollouts share", methods=("gtpo",)),
    Try("punish wrong rollouts less, by narrower bounds below", methods=("ngrpo",)),
    Try("smaller steps", settings=("lr",)),
    columns=("accuracy", "logp_mean", "mask", "sampler_logp"),
)
def likelihood_displacement(record: Record) -> Seen | None:
    """The likelihood of right answers has fallen, though they are what is rewarded.

    Threshold: the mean log-probability a token of right rollouts lies at the end at least 0.1 nats below its best stretch
    and more than a quarter of it lower (and three standard errors). Healthy runs raise it. An alarm where that of the
    wrong rollouts falls with it: then likelihood flows to text that was never sampled.
    Meaning: pushing wrong rollouts down drags right ones along that share their tokens; rare rollouts have large
    gradients, the fall feeds itself, and training collapses.
    Source: LLDS, arXiv:2512.04220 (lazy likelihood displacement); the threshold is our choice
    """
    right, wrong = record.series_or_none("logp/correct", FEW), record.series_or_none("logp/wrong", FEW)
    if right is None:
        right, wrong = _of_rollouts(record, correct=True), _of_rollouts(record, correct=False)
        where = record.at(int(right.steps[-1]))
    else:
        where = record.metric("logp/correct")
    width = max(1, min(5, len(right) // 3))
    smooth = np.convolve(right.values, np.ones(width) / width, mode="valid")
    peak = int(smooth.argmax())
    best, end = float(smooth[peak]), float(smooth[-1])
    fall = best - end
    if fall < max(0.1, 0.25 * abs(best), 3 * right.noise):
        return None
    first, last = int(right.steps[peak]), int(right.steps[-1])
    text = f"right rollouts: {best:.3g} nats a token near step {first}, {end:.3g} at step {last}"
    both = wrong is not None and len(wrong) > 2 and wrong.rise < -0.1
    if wrong is not None and len(wrong):
        text += f"; wrong ones: {wrong.start:.3g} at the beginning, {wrong.end:.3g} at the end"
    return Seen(
        "alarm" if both else "warning",
        f"the likelihood of right answers fell by {fall:.2g} nats a token",
        (Evidence(text, (first, last), {"best": best, "end": end}, where),),
    )


def _of_rollouts(record: Record, *, correct: bool) -> Series:
    """Mean log-probability a token of right (or wrong) rollouts in the sampled steps, under the policy that drew them."""
    steps, values = [], []
    for each in record.samples("accuracy", "logp_mean", at_least=6):
        value = mean_of([each.numbers("logp_mean")[(each.numbers("accuracy") > 0.5) == correct]])
        if value == value:
            steps.append(each.step)
            values.append(value)
    return Series("logp", np.array(steps, dtype=np.int64), np.array(values or [0.0]))
