"""Who draws what: requests are dealt to members so that all have about as much to do and a prompt is read by few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Who = TypeVar("Who")
# What a token that is read costs, beside one that is drawn.
READ = 0.1


@dataclass(frozen=True)
class Job(Generic[Who]):
    """A request, as dealing sees it.

    Attributes:
        number: of it.
        prompt: what it is conditioned on, as a key: jobs with equal ones are cheaper together.
        length: tokens of that.
        tokens: most that are drawn.
        keeper: the member that has stored what it goes on from; None if none has.
    """

    number: int
    prompt: object
    length: int
    tokens: int
    keeper: Who | None = None


@dataclass
class Load:
    """What a member has to do.

    Attributes:
        room: requests that it can take in addition.
        cost: what it has to do already.
        prompts: those that it has to read, or has read.
    """

    room: int
    cost: float
    prompts: set[object]


def deal(jobs: Sequence[Job[Who]], loads: Mapping[Who, Load]) -> list[tuple[Who, int]]:
    """(member, number) of as many jobs as there is room for; `loads` are brought up to date.

    A job goes to its keeper. Others go prompt by prompt, those with most to do first, each to the member with least to do;
    of a prompt that would make one member late, only as much as keeps all level.
    """
    out: list[tuple[Who, int]] = []
    groups: dict[object, list[Job[Who]]] = {}
    for job in jobs:
        keeper = job.keeper
        if keeper is not None and keeper in loads and loads[keeper].room:
            _give(job, keeper, loads[keeper], out)
        else:
            groups.setdefault(job.prompt, []).append(job)
    left = sum(job.tokens for group in groups.values() for job in group)
    for group in sorted(groups.values(), key=lambda each: -sum(job.tokens for job in each)):
        while group:
            free = {who: load for who, load in loads.items() if load.room}
            if not free:
                return out
            known = [who for who in free if group[0].prompt in free[who].prompts]
            least = min(free, key=lambda who: free[who].cost)
            # Reading the prompt once more is worth it where it levels more than it costs.
            extra = READ * group[0].length
            near = min(known, key=lambda who: free[who].cost, default=least)
            who = near if free[near].cost <= free[least].cost + extra else least
            level = (sum(load.cost for load in loads.values()) + left) / len(loads)
            first = True
            while group and free[who].room and (first or free[who].cost + group[-1].tokens <= level + extra):
                job = group.pop()
                left -= job.tokens
                _give(job, who, free[who], out)
                first = False
    return out


def _give(job: Job[Who], who: Who, load: Load, out: list[tuple[Who, int]]) -> None:
    load.cost += job.tokens + (0.0 if job.prompt in load.prompts else READ * job.length)
    load.prompts.add(job.prompt)
    load.room -= 1
    out.append((who, job.number))
