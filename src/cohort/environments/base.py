"""The types of environments: observations, steps, and the factory that makes the environments of a prompt.

An environment is one episode's own. Its methods are plain functions or coroutines: what a plain one takes, all rollouts
wait for, so one that waits for something itself (a server, a sandbox) should be a coroutine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cohort.errors import UsageError, shown
from cohort.rewards.grader import ENVIRONMENT, Grader, own_weight
from cohort.types import Message, Prompt, Rollout


@dataclass(frozen=True)
class Observation:
    """What an environment shows to the policy.

    Attributes:
        content: messages, or a plain text, which a chat template shows as the user's.
        media: images and the like that the messages speak of.
        tools: schemas of functions that the policy may call from here on.
        agent: who speaks next, in an environment of several agents; empty: who spoke last. Each agent sees its own
            conversation alone, and the first one's is the rollout of the prompt.
        conversation: of the agent's conversations the one that goes on. A name that was not there before begins one: a
            sub-agent that is called anew each time has one for each call.
        fresh: the conversation begins anew with this observation: the policy sees nothing of what was said before.
    """

    content: str | list[Message]
    media: Sequence[Any] = ()
    tools: Sequence[Mapping[str, Any]] = ()
    agent: str = ""
    conversation: str = ""
    fresh: bool = False


# Plain texts and lists of messages are observations, too.
Seen = Observation | str | list[Message]


@dataclass(frozen=True)
class Step:
    """The answer of an environment to a turn.

    Attributes:
        observation: what the policy is shown next; None where the episode ends.
        reward: of this turn, for the agent that spoke; None where the environment does not reward. A rollout's is the sum
            over its turns.
        components: parts of the reward by name, summed over the turns likewise; see `EnvironmentFactory.components`.
        done: True if the episode ends here. An observation that comes with it is not shown.
        rewards: agent -> further reward, in each of its conversations so far; one that has not spoken gets none.
    """

    observation: Seen | None = None
    reward: float | None = 0.0
    components: Mapping[str, float] = field(default_factory=dict)
    done: bool = False
    rewards: Mapping[str, float] = field(default_factory=dict)


class Environment(Protocol):
    """An environment of one episode."""

    def reset(self, row: Mapping[str, Any], seed: int) -> Seen | Awaitable[Seen]:
        """Begin the episode.

        Args:
            row: all columns of the prompt's row in the data set.
            seed: seeds everything that is random; all rollouts of a group get the same seed.

        Returns:
            The first observation, which the policy is conditioned on. Where it is the prompt itself, guidance that a method
            put into the prompt stays.
        """
        ...

    def step(self, message: Message) -> Step | Awaitable[Step]:
        """Answer the policy's message, which has the role of the assistant."""
        ...

    def close(self) -> Awaitable[None] | None:
        """Free its resources; called once, however the episode ended."""
        ...


class EnvironmentFactory(ABC):
    """Makes the environments of prompts, and rewards their episodes.

    Attributes:
        grader: the run's reward functions.
        components: names of the parts of the reward that its environments report (`Step.components`).
        turns: most turns of an episode; None if that is not known.
    """

    components: tuple[str, ...] = ()
    turns: int | None = None

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

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights of these components in the reward; parts of the environment's own reward have 0, since that holds them."""
        return tuple(map(own_weight, self.names))

    @abstractmethod
    def make(self, prompt: Prompt, n: int) -> Sequence[Environment]:
        """Environments for n rollouts of a prompt."""

    def group_rewards(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """Rollouts, whole groups of them, with their rewards: here is where they can be compared with each other.

        By default the reward functions see all of them in one call, and what they say is added to the turns' rewards.
        """
        return self.grader.grade(rollouts)


def observed(value: object) -> Observation:
    """What an environment shows.

    Raises:
        TypeError: it is no observation.
    """
    found = value if isinstance(value, Observation) else Observation(value)  # type: ignore[arg-type]
    content = found.content
    if isinstance(content, str):
        return found
    if not isinstance(content, list) or not content:
        raise TypeError(f"an observation is a text or a list of messages, not {_shown(content)}")
    for message in content:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str) or "content" not in message:
            raise TypeError(f"a message has 'role' and 'content', unlike {_shown(message)}")
    return found


def stepped(value: object, components: Sequence[str]) -> Step:
    """What a turn came to.

    Args:
        components: names that its components may have.

    Raises:
        TypeError, ValueError: it is no step that an episode can go on from.
    """
    if not isinstance(value, Step):
        raise TypeError(f"step gives a cohort.environments.Step, not {_shown(value)}")
    shares = {f"the reward of {agent!r}": number for agent, number in value.rewards.items()}
    for name, number in {"reward": value.reward, **value.components, **shares}.items():
        known = number is None and name == "reward"
        if not known and not (isinstance(number, (int, float)) and abs(number) < float("inf")):
            raise ValueError(f"{name} is a finite number, not {_shown(number)}")
    for name in value.components:
        if name not in components:
            raise ValueError(
                f"component {name!r} is not among the factory's components ({', '.join(components) or 'none'}): name it there"
            )
    if value.observation is None and not value.done:
        raise ValueError("a step that does not end the episode has an observation to go on from")
    return value


def _shown(value: object) -> str:
    return f"{type(value).__name__} ({shown(value, 80)})"
