"""The embedded engine: samples with the trainer's own model and weights, rollouts of a prompt sharing the prompt.

Every distinct context is encoded once and its keys and values are stored once; a decoding step attends from all rollouts
of a context to it in one product, and from each to its own tokens apart. Rollouts that end leave at once and waiting ones
take their places. While a session is open, what a rollout has stored is kept when its turn ends (`keeping.py`): its next turn
reads what the environment said, and nothing before that. Contexts that begin alike are read once as far as they do (`keys.py`).
"""

from __future__ import annotations

import functools
import gc
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch

from cohort.engine.base import Completion, Sampling, complete
from cohort.engine.native.cached import CachedDecoder
from cohort.engine.native.flash import Flash
from cohort.engine.native.graphs import Graphs
from cohort.engine.native.shared import KINDS, Kind, SharedDecoder
from cohort.engine.native.trying import agrees
from cohort.errors import out_of_memory
from cohort.policies.causal_lm import CausalLM
from cohort.types import Request


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
        return complete(self.session(sampling), requests)

    def session(self, sampling: Sampling) -> NativeSession:
        """See Engine.session."""
        mode = self.policy.forward_mode  # found out by a pass with gradients
        if mode != "shared" and not self._said:
            self._said = True
            warnings.warn(
                f"{self.policy.name or 'the model'} does not take its attention from transformers' registry, or not as it "
                "must to share prompts: rollouts are drawn with transformers' own cache, and every prompt counts as often "
                "as it has rollouts",
                RuntimeWarning,
                stacklevel=2,
            )
        if mode != "shared":
            return NativeSession(self, sampling, CachedDecoder)
        kind = self.kind
        if kind is not None and not kind.serves(self.policy.base):  # it may have changed since it was tried
            kind = None
        make = functools.partial(SharedDecoder, kind=kind, graphs=self.graphs, flash=self.flash)
        return NativeSession(self, sampling, make)

    @functools.cached_property
    def kind(self) -> Kind | None:
        """What takes steps of decoding from the model's weights; None if they go through its modules."""
        return next((kind for kind in KINDS if agrees(self.policy, kind)), None)


class NativeSession:
    """See `cohort.engine.base.Session`.

    Args:
        make: a decoder of requests.
    """

    def __init__(
        self, engine: NativeEngine, sampling: Sampling, make: Callable[..., SharedDecoder | CachedDecoder]
    ) -> None:
        self.engine, self.sampling, self.make = engine, sampling, make
        # By number, what was submitted and is not finished; those that no decoder has yet.
        self.alive: dict[int, Request] = {}
        self.new: list[int] = []
        self.count, self.open = 0, True
        # The decoder at work, what it gives, and the number of each of its requests.
        self.decoder: SharedDecoder | CachedDecoder | None = None
        self.running: Iterator[tuple[int, Completion] | None] = iter(())
        self.numbers: list[int] = []
        # Tokens that decoders before it encoded.
        self.before = 0

    @property
    def encoded(self) -> int:
        """Tokens that were encoded so far: all of requests that were not drawn, and what was drawn where it is not kept."""
        return self.before + (0 if self.decoder is None else self.decoder.encoded)

    @property
    def waiting(self) -> int:
        """See Session."""
        return len(self.alive)

    def submit(self, request: Request) -> int:
        """See Session."""
        number, self.count = self.count, self.count + 1
        self.alive[number] = request
        self.new.append(number)
        return number

    def forget(self, number: int) -> None:
        """See Session."""
        if self.decoder is not None and number in self.numbers:
            self.decoder.forget(self.numbers.index(number))

    def end(self) -> None:
        """See Session."""
        self.open = False

    def close(self) -> None:
        """See Session."""
        self.alive, self.new = {}, []
        self._stop()

    def next(self) -> tuple[int, Completion]:
        """See Session."""
        found = self._next(None)
        assert found is not None
        return found

    def next_unless(self, stop: Callable[[], bool]) -> tuple[int, Completion] | None:
        """See Session."""
        return self._next(stop)

    @torch.inference_mode()
    def _next(self, stop: Callable[[], bool] | None) -> tuple[int, Completion] | None:
        if not self.alive:
            raise LookupError("no request is waiting to be drawn")
        while True:
            try:
                self._hand_over(stop)
                found = next(self.running)
            except StopIteration:
                self._stop()
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or self.decoder is None or self.decoder.rows == 1:
                    raise
                self.engine.slots = self.decoder.rows // 2
            else:
                if found is None:
                    return None
                number = self.numbers[found[0]]
                del self.alive[number]
                return number, found[1]
            if self.decoder is not None:
                self._shrink()

    def _hand_over(self, stop: Callable[[], bool] | None) -> None:
        """Give the decoder what has come in; where there is none, a new one takes all."""
        if self.decoder is None:
            self.numbers, self.new = list(self.alive), []
            asked = list(self.alive.values())
            engine = self.engine
            self.decoder = self.make(engine.policy, asked, self.sampling, slots=engine.slots, cache_mb=engine.cache_mb)
            self.running = self.decoder.run()
        elif self.new:
            self.numbers += self.new
            self.decoder.add([self.alive[number] for number in self.new])
            self.new = []
        self.decoder.open, self.decoder.stop = self.open, stop

    def _stop(self) -> None:
        """Let go of the decoder and all that it keeps."""
        self.before, self.decoder, self.running = self.encoded, None, iter(())

    def _shrink(self) -> None:
        """After memory ran out: what did not end is drawn again, and its seed gives the same tokens."""
        self._stop()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        warnings.warn(
            f"memory ran out while sampling: going on with {self.engine.slots} rollouts at once (set slots to begin with "
            "fewer, or cache_mb to bound the cache)",
            RuntimeWarning,
            stacklevel=3,
        )
