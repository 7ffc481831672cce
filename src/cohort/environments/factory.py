"""The factory that makes the environments of a prompt's rollouts, and rewards their episodes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from cohort.environments.base import Environment
from cohort.errors import UsageError
from cohort.rewards.grader import ENVIRONMENT, Grader
from cohort.types import Prompt, Rollout


class EnvironmentFactory(ABC):
    """Makes the environments of prompts, and rewards their episodes.

    Attributes:
        grader: the run's reward functions.
        components: names of the parts of the reward that its environments report (`Step.components`).
        turns: most turns of an episode; None if that is not known.
        answers: False where nothing answers the policy, so that a rollout is no episode.
        finishes: True if its environments have `finish()`: asked where a limit of the run ended the episode, it gives a
            step with what the episode is worth then.
        lends: True if its environments have `lend()`, which gives what reward functions are given as `environments`.
    """

    components: tuple[str, ...] = ()
    turns: int | None = None
    answers: bool = True
    finishes: bool = False
    lends: bool = False

    def __init__(self, grader: Grader) -> None:
        self.grader = grader
        taken = sorted({*grader.names} & {*self.names})
        if taken:
            raise UsageError(
                f"a reward function is called {taken[0]!r}, but so is what the environment itself rewards: give the function "
                "another name"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the reward components that its environments give in addition to those of the reward functions."""
        return (ENVIRONMENT, *self.components)

    @abstractmethod
    def make(self, prompt: Prompt, n: int) -> Sequence[Environment]:
        """Environments for n rollouts of a prompt."""

    def group_rewards(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Rollouts, whole groups of them, with their rewards: here is where they can be compared with each other.

        By default the reward functions see all of them in one call, and what they say is added to the turns' rewards.
        """
        return self.grader.grade(rollouts)

    def printed(self) -> str:
        """What its environments printed since the last call, where that is kept."""
        return ""

    def close(self) -> None:
        """Give back what it holds, at the end of the run; by default it holds nothing."""
        return
