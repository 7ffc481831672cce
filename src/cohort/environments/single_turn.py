"""The environment of one turn: a question, an answer, and reward functions that score it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cohort.environments.base import Step
from cohort.environments.factory import EnvironmentFactory
from cohort.types import Message, Prompt

DONE = Step(reward=None, done=True)


class Question:
    """Shows the prompt, and ends with the answer.

    Args:
        source: of the prompt.
    """

    def __init__(self, source: str | list[Message]) -> None:
        self.source = source

    def reset(self, row: Mapping[str, Any], seed: int) -> str | list[Message]:
        """The prompt."""
        return self.source

    def step(self, message: Message) -> Step:
        """End the episode: the reward functions score all answers together."""
        return DONE

    def close(self) -> None:
        """Does nothing: it has no resources."""


class SingleTurn(EnvironmentFactory):
    """Environments of one turn, rewarded by the run's reward functions alone."""

    turns = 1
    answers = False

    @property
    def names(self) -> tuple[str, ...]:
        return ()

    def make(self, prompt: Prompt, n: int) -> Sequence[Question]:
        """See EnvironmentFactory; they have no state, so that one does for all."""
        return [Question(prompt.source)] * n
