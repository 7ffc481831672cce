"""Rewards that come from one turn alone."""

from __future__ import annotations

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import Record


@diagnosis(
    Try(
        "reward turns for what they achieve (`Step(reward=...)`), and place these rewards on their tokens",
        methods=("multi-turn",),
    ),
    Try("values of every token in place of one advantage for all turns", methods=("ppo", "poad")),
    Try("the same weight for every turn, however long", methods=("flow-grpo-agent",)),
    columns=("turns",),
)
def one_turn_reward(record: Record) -> Seen | None:
    """All reward of an environment comes from one turn of many.

    Threshold: 98 % of the absolute rewards of the turns that are looked at (the last five steps that are recorded) stand in
    the last turn, or in the first, of episodes of at least four turns; a note. Environments that do not reward turns are
    not looked at.
    Meaning: an episode's turns all get the same advantage, whichever of them earned it, and the longer episodes are the
    noisier that signal is.
    Source: A Practitioner's Guide to Multi-turn Agentic RL, arXiv:2510.01132 (dense turn rewards); the thresholds are ours
    """
    if not record.answered:
        return None
    total = last = first = 0.0
    count = 0
    steps = []
    for rollouts in record.recent("turns"):
        for turns in rollouts.episodes:
            rewards = [abs(turn["reward"] or 0.0) for turn in turns]
            if len(rewards) >= 4 and sum(rewards):
                total, last, first = total + sum(rewards), last + rewards[-1], first + rewards[0]
                count += 1
        steps.append(rollouts.step)
    if count < 10 or max(last, first) < 0.98 * total:
        return None
    which, share = ("last", last / total) if last >= first else ("first", first / total)
    text = f"in {count} episodes of four turns or more, {percent(share)} of the rewards stand in the {which} turn"
    return Seen(
        "note",
        f"the environment rewards the {which} turn alone",
        (Evidence(text, (steps[0], steps[-1]), {"share": share}, record.at(steps[-1])),),
    )
