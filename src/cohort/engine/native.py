"""The embedded engine: samples with the trainer's own model and weights, rollouts of a prompt sharing the prompt.

Every distinct context is encoded once and its keys and values are stored once; a decoding step attends from all rollouts
of a context to it in one product, and from each to its own tokens apart. Rollouts that end leave at once and waiting ones
take their places.
"""

from __future__ import annotations

import functools
import gc
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch

from cohort.batch import Request
from cohort.engine.base import Completion, Sampling
from cohort.engine.cached import CachedDecoder
from cohort.engine.flash import Flash
from cohort.engine.graphs import Graphs
from cohort.engine.shared import KINDS, Kind, SharedDecoder
from cohort.errors import out_of_memory
from cohort.policies.causal_lm import CausalLM


class NativeEngine:
    """Samples from a CausalLM in-process.

    Args:
        policy: the policy; its weights are used as they are at the time of the call.
        slots: most rollouts decoded at once; fewer after memory ran out.
        cache_mb: most megabytes of keys and values; None sets no bound.
    """

    exact = True

    def __init__(self, policy: CausalLM, *, slots: int = 128, cache_mb: float | None = None) -> None:
        self.policy = policy
        self.slots = slots
        self.cache_mb = cache_mb
        self.graphs = Graphs() if policy.device.type == "cuda" else None
        self.flash = Flash.on(policy.device, policy.dtype)
        self._said = False

    def sync(self) -> None:
        """The weights are shared: nothing to do."""

    def close(self) -> None:
        """It has nothing of its own."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """See Engine.generate."""
        way = self.policy.way  # found out by a pass with gradients
        if way != "shared" and not self._said:
            self._said = True
            warnings.warn(
                f"{self.policy.name or 'the model'} does not take its attention from transformers' registry, or not as it "
                "must to share prompts: rollouts are drawn with transformers' own cache, and every prompt counts as often "
                "as it has rollouts",
                RuntimeWarning,
                stacklevel=2,
            )
        if way != "shared":
            return self._generate(requests, sampling, CachedDecoder)
        kind = self.kind
        if kind is not None and not kind.serves(self.policy.base):  # it may have changed since it was tried
            kind = None
        make = functools.partial(SharedDecoder, kind=kind, graphs=self.graphs, flash=self.flash)
        return self._generate(requests, sampling, make)

    @functools.cached_property
    def kind(self) -> Kind | None:
        """What takes steps of decoding from the model's weights; None if they go through its modules."""
        return next((kind for kind in KINDS if SharedDecoder.agrees(self.policy, kind)), None)

    @torch.inference_mode()
    def _generate(
        self, requests: Sequence[Request], sampling: Sampling, kind: Callable[..., SharedDecoder | CachedDecoder]
    ) -> Iterator[tuple[int, Completion]]:
        left = list(range(len(requests)))
        while left:
            asked = [requests[place] for place in left]
            decoder = kind(self.policy, asked, sampling, slots=self.slots, cache_mb=self.cache_mb)
            done = set()
            try:
                for place, completion in decoder.run():
                    done.add(left[place])
                    yield left[place], completion
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or decoder.rows == 1:
                    raise
                self.slots = decoder.rows // 2
            # What did not end is drawn again, and its seed gives the same tokens.
            left = [place for place in left if place not in done]
            if left:
                del decoder
                gc.collect()
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                warnings.warn(
                    f"memory ran out while sampling: going on with {self.slots} rollouts at once (set slots to begin "
                    "with fewer, or cache_mb to bound the cache)",
                    RuntimeWarning,
                    stacklevel=2,
                )
