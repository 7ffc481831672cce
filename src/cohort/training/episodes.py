"""What answers the policy in a run: loaded and tried before a model is, and put together with the run's rewards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cohort.data.prompts import EMPTY
from cohort.environments.apart import Apart
from cohort.environments.factory import EnvironmentFactory
from cohort.environments.pool import Pool
from cohort.environments.spec import Offer, parse
from cohort.errors import UsageError
from cohort.rewards.grader import ENVIRONMENT, Grader
from cohort.rollouts.episode import Limits
from cohort.training.config import TrainConfig
from cohort.training.offline import is_offline

# Rows for a class of TRL's that makes its tasks itself: a seed each.
ROWS = 256
# Keys that mean something where something answers the policy.
OF_EPISODES = ("max_turns", "turn_tokens", "episode_seconds", "max_tool_calling_iterations")


@dataclass(frozen=True)
class Opened:
    """An environment that is loaded.

    Attributes:
        offer: what it says of itself.
        factory: what makes environments, with the run's grader.
        rows: rows of its own, to train on or, told so, held out; None where it has none.
        close: ends it.
    """

    offer: Offer
    factory: Callable[[Grader], EnvironmentFactory]
    rows: Callable[[bool], list[dict[str, Any]] | None] = lambda held_out: None
    close: Callable[[], None] = lambda: None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the components of its reward."""
        return (ENVIRONMENT, *self.offer.components) if self.offer.rewards else ()


def answers(config: TrainConfig) -> bool:
    """True if something answers the policy."""
    return config.episodes.environment is not None or bool(config.episodes.tools)


def open_environment(config: TrainConfig) -> Opened | None:
    """What the configuration asks for, loaded; None if nothing answers the policy.

    Raises:
        UsageError: it cannot be loaded or made, gives no reward where no reward function does, or has nothing to answer.
    """
    asked = config.episodes
    if not answers(config):
        for key in OF_EPISODES:
            if getattr(asked, key) is not None:
                raise UsageError(
                    f"{key} limits episodes, but nothing answers the policy: name an environment with --environment, or leave "
                    f"{key} out"
                )
        return None
    if is_offline(config):
        raise UsageError("an environment answers rollouts, but with --pairs alone none are sampled: give --data too")
    opened = _opened(config)
    if not opened.offer.rewards and not config.rewards.reward:
        opened.close()
        raise UsageError(
            "what answers the policy gives no reward (tools give none, nor does a class without get_reward, or with "
            "rewards = False), and no reward function was given: name one with --reward"
        )
    return opened


def _opened(config: TrainConfig) -> Opened:
    made_by = config.episodes.environment
    if isinstance(made_by, type) and issubclass(made_by, EnvironmentFactory):
        # It runs here, as it is.
        return Opened(Offer(made_by.components, turns=made_by.turns), made_by)
    asked = config.episodes
    made = parse(made_by, asked.tools, asked.max_tool_calling_iterations)
    pool = Pool(made, timeout=asked.environment_timeout, processes=asked.environment_processes)
    offer = pool.start()

    def rows(held_out: bool) -> list[dict[str, Any]] | None:
        own = pool.rows(held_out=held_out)
        # A class that adds the task to the prompt has its own data, as in TRL; with many, rows say which.
        alone = made_by is not None and not held_out and set(offer.tools) == {""}
        return [{"prompt": EMPTY, "number": i} for i in range(ROWS)] if own is None and alone else own

    return Opened(offer, lambda grader: Apart(grader, pool, offer), rows, pool.close)


def limits_of(config: TrainConfig) -> Limits:
    """Where the configuration ends episodes."""
    asked = config.episodes
    return Limits(asked.max_turns, asked.turn_tokens, asked.episode_seconds)


def data_of(data: Any, opened: Opened) -> Any:
    """The data that is trained or measured on: what was given, else the environment's own rows.

    Raises:
        UsageError: there is neither.
    """
    found = data if data is not None else opened.rows(False)
    if not found:
        raise UsageError(
            "no data was given: --data takes a file, a hub id or reasoning_gym:TASK?..., and the environment has no rows of "
            "its own (rows(), a static method that gives a list of mappings with a 'prompt')"
        )
    return found
