"""One reward component drowns the others."""

from __future__ import annotations

import numpy as np

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent, within_groups
from cohort.doctor.record import Record, Rollouts


@diagnosis(
    Try("normalise each reward by itself before they are added", methods=("gdpo",)),
    Try("other weights", settings=("reward",)),
    Try("only ranks of rewards", methods=("g2rpo",)),
    columns=("group", "reward", "accuracy", "reward/*"),
    cause=True,
)
def drowned_component(record: Record) -> Seen | None:
    """The sum of the rewards follows one component, so that another one has no say in who is better.

    Threshold: a component that varies within groups has under 10 % of the sum's variance there (its covariance with the
    sum, times its weight; negative where it is outvoted), and another one has 60 % or more. Components that are meant to
    be small (a weight under half of the largest) or are mostly earned (a mean above 80 % of what they span) are left
    out, except the one that says what is correct, at any weight: its drowning is an alarm.
    Meaning: advantages come from the sum, so the drowned reward is not learnt, or learnt backwards where the two are at
    odds.
    Source: GDPO, arXiv:2601.05242; the thresholds are our choice
    """
    weights = record.weights
    if len([w for w in weights.values() if w]) < 2:
        return None
    names = [name for name in weights if weights[name]]
    recent = record.recent("group", "reward", *(f"reward/{name}" for name in names))
    parts = []
    for each in recent:
        columns = [np.nan_to_num(each.numbers(f"reward/{name}")) * weights[name] for name in names]
        parts.append(np.stack([within_groups(column, each) for column in columns]))
    values = np.concatenate(parts, axis=1)
    values = values[:, ~np.isnan(values).any(0)]
    total = values.sum(0)
    if values.shape[1] < 20 or total.var() < 1e-9:
        return None
    share = {name: float((row * total).mean() / total.var()) for name, row in zip(names, values, strict=True)}
    varies = {name: float(row.std() / abs(weights[name])) > 0.02 for name, row in zip(names, values, strict=True)}
    earned = {name: _earned(recent, name) for name in names}
    loud = max(share, key=lambda name: share[name])
    largest = max(abs(w) for w in weights.values())
    drowned = [
        name
        for name in names
        if name != loud
        and share[name] < 0.1
        and varies[name]
        and not earned[name]
        and (abs(weights[name]) >= 0.5 * largest or name == record.correctness)
    ]
    if share[loud] < 0.6 or not drowned:
        return None
    worst = min(drowned, key=lambda name: share[name])
    if record.correctness in drowned:
        worst = str(record.correctness)
    steps = tuple(each.step for each in recent)
    text = f"steps {steps[0]}-{steps[-1]}, shares of the variance within groups: " + ", ".join(
        f"{name} {percent(value) if value > 0 else format(value, '.0%')} (weight {weights[name]:g})"
        for name, value in share.items()
    )
    return Seen(
        "alarm" if worst == record.correctness else "warning",
        f"`{loud}` drowns `{worst}`",
        (Evidence(text, steps, share, record.at(steps[-1])),),
    )


def _earned(recent: list[Rollouts], name: str) -> bool:
    """True if the component's mean lies above 80 % of what it spans."""
    values = np.concatenate([each.numbers(f"reward/{name}") for each in recent])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return high > low and float(np.nanmean(values)) > low + 0.8 * (high - low)
