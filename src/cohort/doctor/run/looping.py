"""Episodes in which the policy says the same again and again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cohort.doctor.finding import Evidence, Seen, Try, diagnosis
from cohort.doctor.measures import percent
from cohort.doctor.record import Record

# Turns of the same words that make a loop.
AGAIN = 3


@diagnosis(
    Try("have the environment say that it was asked the same before, or end the episode", settings=("environment",)),
    Try("a limit of turns, so that loops cost less", settings=("max_turns",)),
    Try(
        "keep the entropy up: a policy that is sure of itself repeats itself",
        methods=("dapo", "cov"),
        settings=("temperature",),
    ),
    columns=("turns",),
)
def looping(record: Record) -> Seen | None:
    """In many episodes the policy says the same in three turns or more.

    Threshold: 20 % of the episodes of at least three turns that are looked at (the last five steps that are recorded), an
    alarm from 50 %. The words and calls of a turn are compared as they stand, so that episodes of bare actions (one word
    a turn) may repeat themselves for good reasons.
    Meaning: turns are spent without learning anything new, and where the reward comes at the end, loops are pushed up
    and down with what stands around them.
    Source: measured here; the thresholds are our choice
    """
    if not record.answered:
        return None
    looked = loops = 0
    steps = []
    for rollouts in record.recent("turns"):
        long = [turns for turns in rollouts.episodes if len(turns) >= AGAIN]
        looked += len(long)
        loops += sum(most_said(turns) >= AGAIN for turns in long)
        steps.append(rollouts.step)
    if looked < 10 or loops < 0.2 * looked:
        return None
    share = loops / looked
    text = f"of {looked} episodes of {AGAIN} turns or more, {loops} say the same {AGAIN} times"
    return Seen(
        "alarm" if share >= 0.5 else "warning",
        f"{percent(share)} of the longer episodes go round in circles",
        (Evidence(text, (steps[0], steps[-1]), {"share": share}, record.at(steps[-1])),),
    )


def most_said(turns: Sequence[Mapping[str, Any]]) -> int:
    """How often the policy said what it said most often."""
    said = [
        (first["text"].strip(), *((call["name"], call["arguments"]) for call in first["calls"]))
        for turn in turns
        for first in turn["messages"][:1]
    ]
    return max(Counter(said).values(), default=0)
