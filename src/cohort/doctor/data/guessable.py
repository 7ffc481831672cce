"""Data that can be answered without reading it."""

from __future__ import annotations

from collections import Counter

from cohort.doctor.dataset import Data
from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.signals.answers import gold_key, is_missing


@diagnosis(
    Try("balance the answers", settings=("data",)),
    Try("ask for the working as well, with a reward of its own", settings=("reward",)),
)
def guessable(data: Data) -> Seen | None:
    """Most rows have the same gold answer.

    Threshold: half of the rows, of 20 or more with an answer.
    Meaning: giving that answer always is rewarded half of the time, and is learnt faster than solving anything.
    Source: measured here
    """
    answers = [gold_key(answer) for answer in data.answers() if not is_missing(answer)]
    if len(answers) < 20:
        return None
    answer, many = Counter(answers).most_common(1)[0]
    share = many / len(answers)
    if share < 0.5:
        return None
    text = f"{many} of {len(answers)} rows have the answer {answer[:40]!r}"
    what = f"{percent(share)} of the rows have the same answer"
    return Seen("warning", what, (Evidence(text, (), {"share": share}),))
