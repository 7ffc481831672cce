"""Environments: what answers the policy in an episode, and rewards its turns."""

from cohort.environments.base import Environment, EnvironmentFactory, Observation, Step
from cohort.environments.single_turn import SingleTurn

__all__ = ["Environment", "EnvironmentFactory", "Observation", "SingleTurn", "Step"]
