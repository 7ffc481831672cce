"""Rollouts of a group that are copies of each other."""

from __future__ import annotations

import numpy as np

from cohort.doctor.finding import Evidence, Missing, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import Record


@diagnosis(
    Try("sample at a temperature near 1", settings=("temperature",)),
    Try("do not cut off unlikely tokens when sampling", settings=("top_p", "top_k", "min_p")),
    Try("draw temperatures that keep the entropy near a target", methods=("hapo",)),
    columns=("group", "completion"),
    cause=True,
)
def cold_sampling(record: Record) -> Seen | None:
    """Rollouts are sampled so cold that those of a group are nearly the same.

    Threshold: the configured temperature is 0.5 or less (or top_p 0.5 or less), and at the end (a fifth of the steps, at
    least 5) the entropy of what was sampled from is under 0.1 nats a token, or half of the rollouts in the sampled steps
    repeat another of their group word for word. A cold temperature on a policy that is still varied is no finding. The
    embedded task at temperature 0.2 falls to 0.02 nats within 5 steps; at temperature 1 it keeps 0.1 after 60.
    Meaning: there is nothing to choose between, groups carry no signal, and only what the policy prefers already can be
    rewarded. The trainer scores at the same temperature, which also sharpens its gradients.
    Source: measured here; on temperature and exploration see HAPO, arXiv:2509.16591
    """
    temperature, top_p = record.config.get("temperature"), record.config.get("top_p")
    if not isinstance(temperature, int | float) or not isinstance(top_p, int | float):
        raise Missing("needs the sampling temperature in config.yaml")
    if temperature > 0.5 and top_p > 0.5:
        return None
    entropy = record.series("entropy", at_least=5)
    copies, steps = _copies(record)
    if entropy.end >= 0.1 and not copies >= 0.5:
        return None
    cause = f"temperature {temperature:g}" + (f", top_p {top_p:g}" if top_p < 1 else "")
    evidence = [
        Evidence(
            f"{cause}: {entropy.start:.3g} nats a token at the beginning, {entropy.end:.3g} at the end",
            entropy.last,
            {"entropy": entropy.end, "temperature": float(temperature)},
            record.metric("entropy"),
        )
    ]
    if steps:
        text = f"{percent(copies)} of the rollouts repeat another of their group word for word"
        evidence.append(Evidence(text, tuple(steps), {"copies": copies}, record.at(steps[-1])))
    return Seen("warning", f"sampling is too cold ({cause}): rollouts of a group hardly differ", tuple(evidence))


def _copies(record: Record) -> tuple[float, list[int]]:
    """Share of rollouts that repeat another of their group in the sampled steps; NaN where none is stored."""
    try:
        samples = record.samples("group", "completion")
    except Missing:
        return float("nan"), []
    repeated = []
    for each in samples:
        texts = np.array(each.texts("completion"), dtype=object)
        for rows in each.groups:
            if len(rows) > 1:
                repeated.append(1 - len(set(texts[rows])) / len(rows))
    return (float(np.mean(repeated)) if repeated else float("nan")), [each.step for each in samples]
