"""Clipping that acts on one side only."""

from __future__ import annotations

import numpy as np

from cohort.doctor.finding import Evidence, Missing, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.ratios import COLUMNS, flat, log_ratios
from cohort.doctor.record import Record


@diagnosis(
    Try("bounds of their own above and below", methods=("dapo",)),
    Try("bounds that move so that both sides have their part", methods=("bapo",)),
    Try("keep the gradient of clipped tokens, with a bounded weight", methods=("cispo",)),
    Try("fewer or smaller updates", settings=("updates", "epochs", "lr")),
    columns=COLUMNS,
)
def clip_one_sided(record: Record) -> Seen | None:
    """Nearly all clipped tokens are clipped on the same side.

    Threshold: at least 2 % of the tokens are clipped over the last steps and 90 % of them on one side. Below 2 % it does
    not matter; symmetric bounds on a policy that moves both ways clip on both sides.
    Meaning: clipped above only, rare tokens of good rollouts cannot grow and entropy falls; clipped below only, tokens
    of bad rollouts have been pushed down as far as one step lets them, and the update mostly punishes.
    Source: DAPO, arXiv:2503.14476 (clip higher); BAPO, arXiv:2510.18927
    """
    above, below = (
        record.series_or_none("ratio/clip_high_fraction", 5),
        record.series_or_none("ratio/clip_low_fraction", 5),
    )
    if above is not None and below is not None:
        high, low, steps = above.end, below.end, [int(s) for s in above.steps[-above.window :]]
        where = record.metric("ratio/clip_high_fraction")
    else:
        counts, steps = [], []
        for each in record.recent("logp", "sampler_logp", "advantage", "policy_gradient"):
            ratio, advantage, push = log_ratios(each), flat(each, "advantage"), flat(each, "policy_gradient")
            if not (len(ratio) == len(advantage) == len(push)) or not len(ratio):
                continue
            clipped = (advantage != 0) & (push == 0)
            counts.append([(clipped & (ratio > 0)).sum(), (clipped & (ratio < 0)).sum(), (advantage != 0).sum()])
            steps.append(each.step)
        if not counts:
            raise Missing("needs `ratio/clip_high_fraction`, or rollouts with `policy_gradient`")
        total = np.sum(counts, axis=0)
        high, low = float(total[0] / max(1, total[2])), float(total[1] / max(1, total[2]))
        where = record.at(steps[-1])
    if high + low < 0.02 or max(high, low) < 0.9 * (high + low):
        return None
    side = "above" if high > low else "below"
    text = f"steps {steps[0]}-{steps[-1]}: {percent(high)} of the tokens clipped above, {percent(low)} below"
    return Seen(
        "warning",
        f"clipping acts {side} only: {percent(max(high, low) / (high + low))} of the clipped tokens",
        (Evidence(text, tuple(steps), {"above": high, "below": low}, where),),
    )
