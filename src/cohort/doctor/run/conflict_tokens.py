"""Tokens that right and wrong rollouts share, and that lose likelihood."""

from __future__ import annotations

import numpy as np

from cohort.doctor.finding import Evidence, Missing, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import Floats, Record, Rollouts


@diagnosis(
    Try("spare conflict tokens of punished rollouts, and double them in rewarded ones", methods=("gtpo",)),
    Try("penalise falls of likelihood", methods=("llds",)),
    Try("smaller steps", settings=("lr",)),
    columns=("group", "reward", "tokens", "sampler_logp", "mask"),
)
def conflict_tokens(record: Record) -> Seen | None:
    """Openings and endings that rewarded and punished rollouts share are losing likelihood.

    Threshold: conflict tokens (same token at the same place from the start, or from the end, as in a rollout of the same
    group with the opposite sign of advantage, in an unbroken run) make up 20 % of the punished rollouts' tokens, and
    their mean log-probability at the end of the run lies 0.15 nats or more below the beginning. Sharing alone is
    normal: in healthy runs of the embedded task half of the tokens are shared, and their likelihood rises.
    Meaning: shared tokens get contradictory updates; where the push down wins, what every good answer needs (its format,
    its opening) gets unlikely.
    Source: GTPO, arXiv:2508.03772 (conflict tokens); the thresholds are measured here
    """
    found = []
    for each in record.samples("group", "reward", "tokens", "sampler_logp", at_least=4):
        share, logp = _conflicts(each)
        if share == share:
            found.append((each.step, share, logp))
    if len(found) < 4:
        raise Missing("needs four steps with groups of different rewards")
    steps, shares, logps = (np.array(column) for column in zip(*found, strict=True))
    ends = max(2, len(found) // 4)
    before, after = float(logps[:ends].mean()), float(logps[-ends:].mean())
    share = float(shares[-ends:].mean())
    if share < 0.2 or before - after < 0.15:
        return None
    text = (
        f"{percent(share)} of the punished rollouts' tokens are in conflict; mean log-probability of conflict tokens "
        f"{before:.3g} nats at steps {int(steps[0])}-{int(steps[ends - 1])}, {after:.3g} at steps "
        f"{int(steps[-ends])}-{int(steps[-1])}"
    )
    return Seen(
        "warning",
        f"tokens shared by right and wrong rollouts lost {before - after:.2g} nats of likelihood",
        (
            Evidence(
                text,
                (int(steps[0]), int(steps[-1])),
                {"share": share, "before": before, "after": after},
                record.at(int(steps[-1])),
            ),
        ),
    )


def _conflicts(rollouts: Rollouts) -> tuple[float, float]:
    """(share of conflict tokens among those of punished rollouts, mean log-probability of conflict tokens); NaN if none."""
    tokens, logp, reward = rollouts.lists("tokens"), rollouts.lists("sampler_logp"), rollouts.numbers("reward")
    conflict = total = 0
    collected: list[Floats] = []
    for rows in rollouts.groups:
        sign = np.sign(reward[rows] - reward[rows].mean()) * (np.ptp(reward[rows]) > 0)
        for i, row in enumerate(rows):
            own, values = tokens[row], logp[row]
            if sign[i] >= 0 or own is None or values is None:
                continue
            others = [t for j, r in enumerate(rows) if sign[j] > 0 and (t := tokens[r]) is not None]
            flags = _run(own, others) | _run(own[::-1], [t[::-1] for t in others])[::-1]
            conflict, total = conflict + int(flags.sum()), total + len(own)
            collected.append(values[flags])
    if not total or not conflict:
        return (0.0 if total else float("nan")), 0.0
    return conflict / total, float(np.concatenate(collected).mean())


def _run(own: Floats, others: list[Floats]) -> np.ndarray:
    """True for the leading tokens that some other rollout has at the same place, up to the first that none has."""
    matched = np.zeros(len(own), dtype=bool)
    for other in others:
        both = min(len(own), len(other))
        matched[:both] |= own[:both] == other[:both]
    return np.logical_and.accumulate(matched)
