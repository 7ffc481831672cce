"""The embedded engine: samples with the trainer's own model and weights, rollouts of a prompt sharing the prompt.

Every distinct context is encoded once and its keys and values are stored once; a decoding step attends from all rollouts
of a context to it in one product, and from each to its own tokens apart. Rollouts that end leave at once and waiting ones
take their places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from cohort.batch import Request
from cohort.engine.base import Completion, Sampling
from cohort.engine.cached import CachedDecoder
from cohort.engine.shared import SharedDecoder
from cohort.policies.causal_lm import CausalLM


class NativeEngine:
    """Samples from a CausalLM in-process.

    Args:
        policy: the policy; its weights are used as they are at the time of the call.
        slots: most rollouts decoded at once.
    """

    exact = True

    def __init__(self, policy: CausalLM, *, slots: int = 128) -> None:
        self.policy = policy
        self.slots = slots

    def sync(self) -> None:
        """The weights are shared: nothing to do."""

    @torch.no_grad()
    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """See Engine.generate."""
        if not requests:
            return
        if self.policy.way == "shared":
            yield from SharedDecoder(self.policy, requests, sampling, slots=self.slots).run()
        else:
            yield from CachedDecoder(self.policy, slots=self.slots).generate(requests, sampling)
