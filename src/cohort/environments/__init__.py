"""Environments: what answers the policy in an episode, and rewards its turns."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cohort.environments.base import Environment, Observation, Step

if TYPE_CHECKING:
    from cohort.environments.factory import EnvironmentFactory
    from cohort.environments.single_turn import SingleTurn

# Loaded when first used: a user's environment needs no torch in its process.
_WHERE = {"EnvironmentFactory": "cohort.environments.factory", "SingleTurn": "cohort.environments.single_turn"}
__all__ = ["Environment", "EnvironmentFactory", "Observation", "SingleTurn", "Step"]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        value = globals()[name] = getattr(importlib.import_module(_WHERE[name]), name)
        return value
    raise AttributeError(f"module 'cohort.environments' has no attribute '{name}'")
