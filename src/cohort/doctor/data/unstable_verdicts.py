"""A verifier that changes its mind."""

from __future__ import annotations

from cohort.doctor.dataset import AGAIN, Data, named
from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent


@diagnosis(Try("a verifier without chance; judges at temperature 0", settings=("reward",)))
def unstable_verdicts(data: Data) -> Seen | None:
    """The verifier gives the same completion of the same row another value when it is asked again.

    Threshold: 1 % of the rows; an alarm from 5 %. A verdict that is turned round at random in a share q of cases differs in
    2 q (1 - q) of them: 5 % means that 2.6 % of all verdicts are wrong.
    Meaning: part of the reward is noise, which is learnt from as if it were signal.
    Source: measured here; on noisy verifiers see arXiv:2510.00915
    """
    asked = [
        each for each in data.checked() if each.values.get(AGAIN) is not None and each.values.get("plain") is not None
    ]
    changed = [each.row for each in asked if each.values[AGAIN] != each.values["plain"]]
    share = len(changed) / max(1, len(asked))
    if not changed or share < 0.01:
        return None
    which = f"{len(changed)} of {len(asked)} rows: {named(changed, data.rows)}"
    text = f"`{data.verifier}` changed its verdict on the same text in {which}"
    return Seen(
        "alarm" if share >= 0.05 else "warning",
        f"the verifier contradicts itself in {percent(share)} of the rows",
        (Evidence(text, (), {"share": share}),),
    )
