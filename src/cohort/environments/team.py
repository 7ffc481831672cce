"""A team of agents that answers a question together: each plans, reads what the others found, revises, and votes.

The loop is that of arXiv:2511.19524, over texts.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cohort.environments.base import Observation, Step
from cohort.types import Message


def vote(answers: Sequence[str]) -> str:
    """The answer that most give; among equals the one that comes first.

    Raises:
        ValueError: there is none.
    """
    if not answers:
        raise ValueError("nobody answers")
    return Counter(answers).most_common(1)[0][0]


def drop_out(agents: Sequence[str], rate: float, rng: random.Random) -> list[str]:
    """The agents that take part: each is left out with probability `rate`; drawn again where nobody is left."""
    if rate >= 1:
        raise ValueError("a dropout of 1 leaves nobody")
    while True:
        active = [agent for agent in agents if rng.random() >= rate]
        if active:
            return active


class Team:
    """Every agent answers the question, sees what all have said, and answers again, `rounds` times; then they vote.

    A row has `prompt` and `answer`. Every agent is rewarded with a sum of three parts, each 0 or 1: whether the vote is right,
    whether `read` finds an answer in all of its messages, and whether it made use of the others (`collaborated`).

    Attributes:
        agents: their names.
        dropout: probability with which an agent is left out; the rollouts of a group leave out the same ones.
    """

    def __init__(self, agents: Sequence[str] = ("one", "two"), *, rounds: int = 2, dropout: float = 0.0) -> None:
        self.agents, self.rounds, self.dropout = tuple(agents), rounds, dropout

    def reset(self, row: Mapping[str, Any], seed: int) -> Observation:
        """The question, to the first agent that takes part."""
        self.active = drop_out(self.agents, self.dropout, random.Random(seed))
        self.question, self.right = row["prompt"], str(row["answer"]).strip()
        self.said: dict[str, list[str | None]] = {agent: [] for agent in self.active}
        self.turn = 0
        return Observation(self.question, agent=self.active[0])

    def step(self, message: Message) -> Step:
        """Take an agent's answer, and ask the next one."""
        agent = self.active[self.turn % len(self.active)]
        self.said[agent].append(self.read(str(message["content"])))
        self.turn += 1
        if self.turn < len(self.active) * self.rounds:
            asked = self.active[self.turn % len(self.active)]
            first = self.turn < len(self.active)
            return Step(Observation(self.question if first else self._memory(asked), agent=asked))
        return self._end()

    def close(self) -> None:
        """Does nothing: it has no resources."""

    def read(self, text: str) -> str | None:
        """The answer in a message; None where it has not the form of one."""
        words = text.split()
        return words[-1] if words else None

    def collaborated(self, agent: str) -> bool:
        """Whether an agent ended with the right answer after it had read others; a class of yours may judge otherwise."""
        others = any(self.said[other][0] is not None for other in self.active if other != agent)
        return others and len(self.said[agent]) > 1 and self.said[agent][-1] == self.right

    def _memory(self, agent: str) -> str:
        found = [f"{other}: {self.said[other][-1] or 'nothing'}" for other in self.active if other != agent]
        return "; ".join(found) or "nobody else"

    def _end(self) -> Step:
        given = [answer for agent in self.active if (answer := self.said[agent][-1]) is not None]
        result = float(bool(given) and vote(given) == self.right)
        rewards = {
            agent: result + float(None not in self.said[agent]) + float(self.collaborated(agent))
            for agent in self.active
        }
        return Step(done=True, rewards=rewards)
