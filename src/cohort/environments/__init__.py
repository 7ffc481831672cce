"""What answers a policy: the world of an episode, and what its turns are worth."""

from cohort.environments.base import Environment, EnvironmentFactory, Observation, Step
from cohort.environments.single_turn import SingleTurn

__all__ = ["Environment", "EnvironmentFactory", "Observation", "SingleTurn", "Step"]
