"""The types of environments: what one is, what it shows, and what it makes of a turn.

An environment is one episode's own. Its methods are plain functions or coroutines. Nothing here needs torch: the processes
in which environments live start without it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from cohort.errors import shown

if TYPE_CHECKING:
    from cohort.types import Message

# Why an episode ended: its environment says so ("done"); a limit of turns, tokens or seconds; its environment failed; its
# environment could not read what the policy said.
End = Literal["done", "turns", "tokens", "seconds", "failed", "unparseable"]


class EnvironmentFailed(Exception):
    """An environment in another process did not answer: what it raised there, or what became of it."""


class Gone(EnvironmentFailed):
    """Its process died, or was ended."""


class Late(EnvironmentFailed):
    """It did not answer in time."""


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
        behind: at the beginning, the prompt is shown, and the content, a text, stands behind its last message.
    """

    content: str | list[Message]
    media: Sequence[Any] = ()
    tools: Sequence[Mapping[str, Any]] = ()
    agent: str = ""
    conversation: str = ""
    fresh: bool = False
    behind: bool = False


# Plain texts and lists of messages are observations, too.
Seen = Observation | str | list[dict[str, Any]] | None


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
        end: why it ends, where it is not that the task is over: "turns" (a limit of the environment's own) or "unparseable"
            (it could not read what the policy said).
    """

    observation: Seen | None = None
    reward: float | None = 0.0
    components: Mapping[str, float] = field(default_factory=dict)
    done: bool = False
    rewards: Mapping[str, float] = field(default_factory=dict)
    end: Literal["done", "turns", "unparseable"] = "done"


class Environment(Protocol):
    """An environment of one episode."""

    def reset(self, row: Mapping[str, Any], seed: int) -> Seen | Awaitable[Seen]:
        """Begin the episode.

        Args:
            row: all columns of the prompt's row in the data set.
            seed: seeds everything that is random; all rollouts of a group get the same seed.

        Returns:
            The first observation, which the policy is conditioned on; None is the prompt. Where it is the prompt itself,
            guidance that a method put into the prompt stays.
        """
        ...

    def step(self, message: Message) -> Step | Awaitable[Step]:
        """Answer the policy's message, which has the role of the assistant."""
        ...

    def close(self) -> Awaitable[None] | None:
        """Free its resources; called once, however the episode ended."""
        ...


def observed(value: object, *, first: bool = False) -> Observation:
    """What an environment shows.

    Args:
        first: at the beginning of the episode, where None is the prompt.

    Raises:
        TypeError: it is no observation.
    """
    if value is None and first:
        return Observation("", behind=True)
    found = value if isinstance(value, Observation) else Observation(value)  # type: ignore[arg-type]
    content = found.content
    for name in ("agent", "conversation"):
        if not isinstance(getattr(found, name), str):
            raise TypeError(f"an observation's {name} is a text, not {_shown(getattr(found, name))}")
    _schemas(found.tools)
    if found.behind and not (first and isinstance(content, str)):
        raise TypeError("what stands behind the prompt is a text, and comes with the reset")
    if isinstance(content, str):
        return found
    if not isinstance(content, list) or not content:
        raise TypeError(f"an observation is a text or a list of messages, not {_shown(content)}")
    for message in content:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str) or "content" not in message:
            raise TypeError(f"a message has 'role' and 'content', unlike {_shown(message)}")
    return found


def _schemas(tools: object) -> None:
    """Refuse what describes no functions (TypeError)."""
    if not isinstance(tools, Sequence) or isinstance(tools, (str, bytes)):
        raise TypeError(f"an observation's tools are a list of schemas, not {_shown(tools)}")
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise TypeError(f"a tool's schema has a 'name', itself or in its 'function', unlike {_shown(tool)}")
        takes = function.get("parameters") or {}
        each = (takes.get("properties") or {}) if isinstance(takes, Mapping) else None
        if not isinstance(each, Mapping) or not all(isinstance(schema, Mapping) for schema in each.values()):
            raise TypeError(f"the parameters of the tool {function['name']!r} are a JSON schema, not {_shown(takes)}")


def beginning(seen: Observation, source: str | list[Message]) -> Observation:
    """What is shown first, with the prompt where it stands behind that.

    Args:
        source: of the prompt.
    """
    if not seen.behind:
        return seen
    content = seen.content
    assert isinstance(content, str)
    if not content:
        return replace(seen, content=source, behind=False)
    if isinstance(source, str):
        return replace(seen, content=source + content, behind=False)
    last = {**source[-1], "content": str(source[-1]["content"]) + content}
    return replace(seen, content=[*source[:-1], last], behind=False)


def stepped(value: object, components: Sequence[str]) -> Step:
    """What a turn came to.

    Args:
        components: names that its components may have.

    Raises:
        TypeError, ValueError: it is no step that an episode can go on from.
    """
    if not isinstance(value, Step):
        raise TypeError(f"step gives a cohort.environments.Step, not {_shown(value)}")
    for name in ("components", "rewards"):
        if not isinstance(getattr(value, name), Mapping):
            raise TypeError(f"a step's {name} are a mapping of names to numbers, not {_shown(getattr(value, name))}")
    shares = {f"the reward of {agent!r}": number for agent, number in value.rewards.items()}
    for name, number in {"reward": value.reward, **value.components, **shares}.items():
        known = number is None and name == "reward"
        if not known and not (isinstance(number, (int, float)) and abs(number) < float("inf")):
            raise ValueError(f"{name} is a finite number, not {_shown(number)}")
    for name in value.components:
        if name not in components:
            named = ", ".join(components) or "none"
            raise ValueError(f"component {name!r} is not among the environment's components ({named}): add it to these")
    if value.end not in ("done", "turns", "unparseable"):
        raise ValueError(f"a step's end is 'done', 'turns' or 'unparseable', not {_shown(value.end)}")
    if value.observation is None and not value.done:
        raise ValueError("a step that does not end the episode has an observation to go on from")
    return value


def _shown(value: object) -> str:
    return f"{type(value).__name__} ({shown(value, 80)})"
