"""Which reward says what is correct, and what the share of correct rollouts is called."""

from __future__ import annotations

from collections.abc import Sequence

from cohort.errors import UsageError
from cohort.rewards.spec import RewardSpec, parse
from cohort.training.config import TrainConfig


def accuracy_component(asked: str | None, specs: list[RewardSpec], own: Sequence[str] = ()) -> str:
    """The reward that says what is correct: the one asked for, else the first verifier, else what the environment gives,
    else the first reward.

    Args:
        own: components of the environment's reward, itself first; empty where there is none.
    """
    names = [*own, *(spec.name for spec in specs)]
    if asked is not None:
        if asked not in names:
            raise UsageError(f"accuracy = '{asked}' names no reward of this run ({', '.join(names)})")
        return asked
    return next((spec.name for spec in specs if spec.verifies), names[0])


def verdict_name(config: TrainConfig, own: Sequence[str] = ()) -> str:
    """What the share of correct rollouts is called: "accuracy" where a verifier, or the reward that the user named, says
    which are; of any other reward what it is, as in "style>=1"."""
    if config.rewards.accuracy is not None or not (config.rewards.reward or own):
        return "accuracy"
    specs = parse(config.rewards.reward) if config.rewards.reward else []
    name = accuracy_component(None, specs, own)
    return "accuracy" if any(spec.verifies for spec in specs) else f"{name}>={config.rewards.correct_at:g}"
