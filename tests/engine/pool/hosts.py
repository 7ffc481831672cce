"""Hosts in threads of a test, each over a copy of a policy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from cohort.engine.native.engine import NativeEngine
from cohort.engine.pool.host import EngineHost
from cohort.engine.pool.weights import changing, take_over
from cohort.policies.causal_lm import CausalLM


@dataclass(frozen=True)
class Copied:
    """Weights in this process."""

    tensors: Mapping[str, Tensor]

    def fetch(self) -> Mapping[str, Tensor]:
        return self.tensors


class Copies:
    """A Shelf in this process."""

    def put(self, version: int, policy: CausalLM) -> Copied:
        return Copied({name: each.clone() for name, each in changing(policy).items()})

    def drop(self, version: int) -> None:
        """The last who knows of it lets it go."""

    def close(self) -> None:
        """There is nothing to take away."""


def copying(policy: CausalLM) -> Callable[[], EngineHost]:
    """Makes hosts of embedded engines, each over a copy of a policy: the policy may change while they draw."""

    def make() -> EngineHost:
        own = CausalLM(copy.deepcopy(policy.model), name=policy.name)
        own.renderer = copy.deepcopy(policy.renderer)
        return EngineHost(NativeEngine(own, slots=8), lambda weights: take_over(own, weights))

    return make
