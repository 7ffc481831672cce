"""What a run takes where its configuration says nothing: the task of an embedded model, the rewards of a method's paper."""

from __future__ import annotations

from cohort import registry
from cohort.methods import MethodError
from cohort.training import toy
from cohort.training.config import TrainConfig, make_config
from cohort.training.offline import is_offline


def with_defaults(config: TrainConfig) -> TrainConfig:
    """The task and hyperparameters of an embedded model, and the rewards that go with the method, where the configuration
    does not name any."""
    config = toy.with_defaults(config)
    answered = config.episodes.environment is not None or bool(config.episodes.tools)
    if config.rewards.reward or answered or is_offline(config):
        return config
    try:
        rewards = registry.rewards(config.method)
    except MethodError:  # a method that was made in Python, or one that is refused with its name later
        return config
    return make_config(config.given(), {"reward": list(rewards)}) if rewards else config
