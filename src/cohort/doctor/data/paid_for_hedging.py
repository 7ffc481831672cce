"""A reward that pays for completions that commit to no answer."""

from __future__ import annotations

from cohort.doctor.attacks import ALL, BOXES, HEDGING
from cohort.doctor.dataset import Data
from cohort.doctor.finding import Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.signals.answers import gold_key, is_missing

# So many different answers can be given at once.
FEW = 10


@diagnosis(
    Try("a verifier that reads one answer, in its place", settings=("reward",)),
    Try("ask for the answer in one form, and let a format say that it stands there once", settings=("reward_gate",)),
    Try("tell the judge that only the final answer counts, and that there must be one", settings=("reward",)),
)
def paid_for_hedging(data: Data) -> Seen | None:
    """The run's reward pays for completions that give all answers of the data at once, or, where a function of the user's or a
    model judges, that name the right answer while they refuse or deny it.

    Threshold: on average at least 50 % of what the right answer, written plainly, is paid: a warning; an alarm from 90 % where
    there are at most 10 different answers, which any rollout can list. What is paid no more than a guess is left out.
    Meaning: a rollout need not choose, so it is paid without having solved anything.
    Source: measured here
    """
    shares, evidence = data.worth(HEDGING, least=0.5)
    if not shares:
        return None
    few = len({gold_key(answer) for answer in data.answers() if not is_missing(answer)}) <= FEW
    listed = max((share for way, share in shares.items() if way in (ALL, BOXES)), default=0.0)
    what = (
        f"completions that commit to no answer are paid up to {percent(max(shares.values()))} of what right answers are"
    )
    return Seen("alarm" if few and listed >= 0.9 else "warning", what, evidence)
