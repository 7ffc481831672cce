"""`gymnasium:ID`: environments of gymnasium that can be shown and played in texts.

An observation is shown as it is where it is a text, by its parts where it is made of texts and whole numbers, and as the
environment renders it (`render_mode="ansi"`) where it can. An action is a text, or one of a few that have names. The reward
is the environment's, a step; an episode ends when it is terminated or truncated.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cohort.environments.adapters.shared import ROWS, needed, number, said, seeded
from cohort.environments.base import Step
from cohort.environments.spec import Maker
from cohort.errors import UsageError

if TYPE_CHECKING:
    from cohort.types import Message

# Spaces whose values can be told in words.
TOLD = {"Text", "Discrete", "MultiDiscrete", "MultiBinary"}
# What a terminal would show in colour stands in brackets.
_COLOURED = re.compile(r"\x1b\[[\d;]+m(.*?)\x1b\[0m", re.S)
_CONTROL = re.compile(r"\x1b\[[\d;]*m")


class Gymnasium:
    """Environments of one ID.

    Args:
        name: the ID, or `module:ID` where a module registers it.
        options: `size` and `seed` of its rows; `actions`, names of its actions separated by commas; `instructions`, shown
            before the first observation; `invalid_reward` of an answer that names no action; all others go to
            `gymnasium.make`.

    Raises:
        UsageError: the package is not installed, there is no such ID, or it cannot be shown or played in texts.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.gym = needed("gymnasium", "gymnasium")
        self.name = name
        own = {"size", "seed", "actions", "instructions", "invalid_reward"}
        self.arguments = {key: value for key, value in options.items() if key not in own}
        self.size = number(options, "size", ROWS, whole=True, least=1)
        self.seed = number(options, "seed", 0, whole=True)
        self.invalid_reward = number(options, "invalid_reward", 0.0)
        env = self.made()
        try:
            kinds = _kinds(env.observation_space)
            self.rendered = "Text" not in kinds and "ansi" in env.metadata.get("render_modes", ())
            if not self.rendered and not kinds <= TOLD:
                raise UsageError(
                    f"{self.name} shows {env.observation_space}, which is no text, and does not render as text either "
                    "(render_mode='ansi'): register it with a wrapper that makes texts of it "
                    "(gymnasium.wrappers.TransformObservation)"
                )
            if self.rendered:
                self.arguments["render_mode"] = "ansi"
            self.actions = self._actions(env, options.get("actions"))
        finally:
            env.close()
        told = "" if self.actions is None else f"Answer with one action: {', '.join(self.actions)}."
        self.prompt = str(options.get("instructions", "")) or "\n".join(filter(None, [self.name, told]))

    def rows(self, held_out: bool) -> list[dict[str, Any]]:
        """A row a seed."""
        return seeded(self.prompt, self.size, self.seed, held_out)

    def made(self) -> Any:
        """A game of this kind."""
        errors = self.gym.error
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self.gym.make(self.name, **self.arguments)
        except errors.DependencyNotInstalled as error:
            raise UsageError(str(error)) from error
        except (errors.UnregisteredEnv, ModuleNotFoundError) as error:
            raise UsageError(str(error)) from error
        except (TypeError, AssertionError, errors.Error) as error:
            given = "".join(f" {key}={value!r}" for key, value in self.arguments.items())
            raise UsageError(f"it cannot be made{given and f' with{given}'}: {error}") from error

    def _actions(self, env: Any, named: Any) -> tuple[str, ...] | None:
        """Names of its actions; None if an action is a text."""
        space = env.action_space
        if isinstance(space, self.gym.spaces.Text):
            return None
        if not isinstance(space, self.gym.spaces.Discrete):
            raise UsageError(f"{self.name} takes {space}, which is neither a text nor one of a few actions")
        count = int(space.n)
        if named is not None:
            names = tuple(part.strip() for part in str(named).split(","))
        else:
            names = _named(env.unwrapped, count) or tuple(str(space.start + i) for i in range(count))
        if len(set(names)) != count or not all(names):
            raise UsageError(f"{self.name} has {count} actions, but actions names {', '.join(names)}: a name for each")
        return names


class Game:
    """One episode of a game."""

    def __init__(self, of: Gymnasium) -> None:
        self.of = of
        self.env: Any = None

    def reset(self, row: Mapping[str, Any], seed: int) -> str:
        """The row's prompt, and the first observation; the row's seed goes before that of the run."""
        self.env = self.of.made()
        observation, _ = self.env.reset(seed=int(row.get("seed", seed)) % 2**32)
        return f"{row.get('prompt', self.of.prompt)}\n\n{self._shown(observation)}"

    def step(self, message: Message) -> Step:
        """Play the action that was said."""
        text = said(message)
        action: Any = text
        if self.of.actions is not None:
            place = spoken(text, self.of.actions)
            if place is None:
                told = f"This names no action. Answer with one of: {', '.join(self.of.actions)}."
                return Step(told, self.of.invalid_reward)
            action = int(self.env.action_space.start) + place
        observation, reward, terminated, truncated, _ = self.env.step(action)
        done = bool(terminated or truncated)
        return Step(
            self._shown(observation), float(reward), done=done, end="done" if terminated or not done else "turns"
        )

    def close(self) -> None:
        """Close the game."""
        if self.env is not None:
            self.env.close()

    def _shown(self, observation: Any) -> str:
        if not self.of.rendered:
            return texts(observation)
        drawn = _COLOURED.sub(r"[\1]", str(self.env.render()))
        return _CONTROL.sub("", drawn).strip("\n")


def load(name: str, options: Mapping[str, Any]) -> Maker:
    """The maker of its environments; see `Gymnasium`."""
    of = Gymnasium(name, options)
    return Maker(lambda: Game(of), rows=of.rows)


def spoken(text: str, names: Sequence[str]) -> int | None:
    """The place of the name that is said last, as a word of its own; None if none is."""
    found = [
        (match.end(), len(name), i)
        for i, name in enumerate(names)
        for match in re.finditer(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text, re.I)
    ]
    # Of names that end alike, the longest is meant.
    return max(found)[2] if found else None


def texts(observation: Any) -> str:
    """An observation made of texts and whole numbers, a part a line."""
    if isinstance(observation, str):
        return observation
    if isinstance(observation, Mapping):
        return "\n".join(f"{name}: {texts(value)}" for name, value in observation.items())
    if isinstance(observation, (tuple, list)):
        return ", ".join(map(texts, observation))
    return str(observation.tolist() if hasattr(observation, "tolist") else observation)


def _kinds(space: Any) -> set[str]:
    """Of the spaces that a space is made of."""
    name = type(space).__name__
    if name not in ("Dict", "Tuple"):
        return {name}
    return {kind for part in (space.values() if name == "Dict" else space) for kind in _kinds(part)}


def _named(env: Any, count: int) -> tuple[str, ...] | None:
    """The names that an environment itself has for its actions, as those of Atari and MiniGrid do."""
    names: Any = None
    if hasattr(env, "get_action_meanings"):
        names = env.get_action_meanings()
    elif hasattr(getattr(env, "actions", None), "__members__"):
        names = list(env.actions.__members__)
    return tuple(str(name).lower() for name in names) if names is not None and len(names) == count else None


def ids() -> list[str]:
    """Those registered that may be played in texts: gymnasium's own with few actions, and all of other packages."""
    registry = needed("gymnasium", "gymnasium").registry
    places = {
        name: spec.entry_point
        if isinstance(spec.entry_point, str)
        else str(getattr(spec.entry_point, "__module__", ""))
        for name, spec in registry.items()
    }
    return sorted(
        name
        for name, place in places.items()
        if place.startswith("gymnasium.envs.toy_text") or not place.startswith("gymnasium.")
    )
