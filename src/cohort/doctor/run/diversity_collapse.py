"""pass@1 rises while pass@k falls."""

from __future__ import annotations

import numpy as np

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import FEW, Record, Series


@diagnosis(
    Try("push likely right answers less than rare ones", methods=("ucpo", "progrpo", "differential-smoothing")),
    Try("optimise the best of the group", methods=("tea",)),
    Try("sample hotter", settings=("temperature",)),
    columns=("group", "accuracy"),
)
def diversity_collapse(record: Record) -> Seen | None:
    """Single answers get better, while the share of prompts with any right answer in the group falls.

    Threshold: pass@1 on training prompts rises and pass@G falls, both by 3 points and by more than three standard errors.
    Where the run has not recorded `group/pass@G`, both are computed from the stored rollouts of up to 16 steps.
    Meaning: the policy concentrates on what it can do already and gives up prompts that it solved now and then: it is
    sharpened, and its reach shrinks.
    Source: Yue et al., arXiv:2504.13837; UCPO, arXiv:2605.00365
    """
    one, many = record.series_or_none("group/pass@1", FEW), record.series_or_none("group/pass@G", FEW)
    if one is None or many is None:
        one, many = _passes(record)
    where = record.metric("group/pass@G" if record.series_or_none("group/pass@G") else "accuracy")
    if one.rise < 0.03 or many.rise > -0.03 or not one.rises() or not many.falls():
        return None
    first, last = many.last
    text = (
        f"pass@1 {percent(one.start)} at the beginning, {percent(one.end)} at the end; share of groups with a right answer "
        f"{percent(many.start)} and {percent(many.end)}"
    )
    return Seen(
        "warning",
        f"fewer prompts are solved at all ({percent(many.start)} to {percent(many.end)}), while pass@1 rises",
        (Evidence(text, (first, last), {"pass@1": one.rise, "pass@G": many.rise}, where),),
    )


def _passes(record: Record) -> tuple[Series, Series]:
    """pass@1 and pass@G in the sampled steps."""
    steps, ones, manies = [], [], []
    for each in record.samples("group", "accuracy", at_least=FEW):
        accuracy = each.numbers("accuracy")
        steps.append(each.step)
        ones.append(float(np.nanmean(accuracy)))
        manies.append(float(np.mean([accuracy[rows].max() for rows in each.groups])))
    at = np.array(steps, dtype=np.int64)
    return Series("group/pass@1", at, np.array(ones)), Series("group/pass@G", at, np.array(manies))
