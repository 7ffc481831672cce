"""What is rewarded beyond correctness is length."""

from __future__ import annotations

import numpy as np

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import correlation, percent, within_groups
from cohort.doctor.record import Record


@diagnosis(
    Try("pay for length only where the answer is right, or normalise each reward by itself", methods=("gdpo",)),
    Try("weigh the reward of length less, or leave it out", settings=("reward",)),
    Try("prefer the shorter of two right answers only", methods=("grpo-lambda",)),
    columns=("group", "reward", "accuracy", "length", "mask"),
)
def length_explains_reward(record: Record) -> Seen | None:
    """Within a group, what is rewarded is mostly how long a rollout is, not whether it is right.

    Threshold: of the variance of the rewards within groups, at least 30 % is not explained by correctness, and at least
    half of that by length (squares of Pearson's correlation). That right answers happen to be longer is left out of
    account, since for rewards of right and wrong the first part is 0. An alarm where length explains more than
    correctness in all.
    Meaning: the gradient mostly teaches a length. Whatever length is paid for will come, and the answers follow it.
    Source: reward and length in RL, Singhal et al., arXiv:2310.03716; the thresholds are our choice
    """
    parts = []
    recent = record.recent("group", "reward", "accuracy", "length")
    for each in recent:
        columns = (each.numbers("reward"), each.numbers("accuracy"), each.numbers("length"))
        parts.append(np.stack([within_groups(column, each) for column in columns]))
    reward, accuracy, length = np.concatenate(parts, axis=1)
    known = ~np.isnan(reward + accuracy + length)
    reward, accuracy, length = reward[known], accuracy[known], length[known]
    if len(reward) < 20 or reward.var() < 1e-9:
        return None
    slope = float((reward * accuracy).mean() / (accuracy**2).mean()) if accuracy.any() else 0.0
    rest = reward - slope * accuracy
    unexplained = float(rest.var() / reward.var())
    # Length net of what it shares with correctness.
    shared = float((length * accuracy).mean() / (accuracy**2).mean()) if accuracy.any() else 0.0
    link = correlation(rest, length - shared * accuracy)
    if unexplained < 0.3 or not link**2 >= 0.5:
        return None
    steps = tuple(each.step for each in recent)
    by_length = unexplained * link**2
    text = (
        f"steps {steps[0]}-{steps[-1]}: of the rewards' variance within groups correctness explains "
        f"{percent(1 - unexplained)}, and length {percent(by_length)} more (correlation {link:+.2f})"
    )
    return Seen(
        "alarm" if by_length > 1 - unexplained else "warning",
        f"{'longer' if link > 0 else 'shorter'} rollouts are rewarded more, right or wrong",
        (
            Evidence(
                text,
                steps,
                {"correctness": 1 - unexplained, "length": by_length, "correlation": link},
                record.at(steps[-1]),
            ),
        ),
    )
