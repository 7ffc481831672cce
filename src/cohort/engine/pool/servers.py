"""Members of a pool that are vLLM's servers.

Each has an engine of its own here, and a thread that speaks to it. The weights of a version are written once, and each server
reads them when it is to draw with them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cohort.engine.pool.here import Queues, QueueWire, serve_queues
from cohort.engine.pool.host import EngineHost
from cohort.engine.pool.link import Link
from cohort.engine.pool.messages import Beat, Reply
from cohort.engine.vllm.engine import Served, VLLMEngine
from cohort.engine.vllm.server import START, Server
from cohort.engine.vllm.weights import Checkpoint, Folder, Memory
from cohort.errors import EngineError, UsageError

# Seconds between two looks at whether a server is there.
APART = 2.0


class Copy:
    """A vLLM with a copy of the weights, seen from here.

    Args:
        policy: what is trained. It is read when weights go from memory to memory, when it is first found out whether vLLM
            holds this model, and when it is found out which weights do not reach vLLM.
    """

    def __init__(self, policy: Served) -> None:
        self.policy = policy
        self.engine: VLLMEngine | None = None

    def host(self, backend: Server, *, memory: bool = False) -> EngineHost:
        """A host of a vLLM that may hold any weights.

        Args:
            memory: weights go from memory to memory, and not through folders.

        Raises:
            UsageError: they cannot.
        """
        # That it holds this model was seen when the first host drew.
        known, policy = self.engine is not None, self.policy
        if memory:
            self.engine = VLLMEngine(policy, backend, Memory(policy, backend), known=known)
            size = sum(each.numel() * each.element_size() for each in policy.trainable())
            return EngineHost(self.engine, lambda weights: size)
        route = Folder(policy, backend)
        self.engine = VLLMEngine(policy, backend, route, known=known)

        def take(weights: Checkpoint) -> int:
            route.given = weights
            return weights.size

        return EngineHost(self.engine, take)

    def not_taken_over(self) -> list[str]:
        """See `cohort.engine.base.Copying`; nothing may be drawn meanwhile."""
        if self.engine is None:
            return []
        route = self.engine.route
        if not isinstance(route, Folder):
            return self.engine.not_taken_over()
        given, route.given = route.given, None
        try:
            return self.engine.not_taken_over()
        finally:
            route.given = given


@dataclass(frozen=True)
class Asked:
    """What a server must be able to do.

    Attributes:
        url: of it.
        slots, timeout, masked: as for `Server`.
        memory: weights go from memory to memory; None: where the server was started for that.
    """

    url: str
    slots: int
    timeout: float
    masked: bool
    memory: bool | None


def server(name: str, copy: Copy, asked: Asked) -> Link:
    """A member behind a vLLM server, which is waited for while it is not there, and drawn with again when it is."""

    def reach(closing: threading.Event) -> QueueWire:
        policy = copy.policy
        backend = Server(asked.url, concurrency=asked.slots, timeout=asked.timeout, wait=0.0, masked=asked.masked)
        try:
            backend.probe()
            memory = asked.memory if asked.memory is not None else backend.transfer() == "nccl"
            memory = memory and not policy.is_adapter
            backend.check(policy.name, adapters=policy.is_adapter, folder=not (policy.is_adapter or memory))
        except EngineError as error:
            backend.close()
            raise EngineError(f"{error}; start it with {START}") from error
        except UsageError:
            try:
                backend.probe()  # it may be gone since
            finally:
                backend.close()
            raise
        queues = Queues()
        thread = serve_queues(queues, lambda: copy.host(backend, memory=memory), name)
        return _ServerWire(queues, thread, backend)

    return Link(name, reach)


class _ServerWire(QueueWire):
    """Also looks whether the server is there where nothing was heard of it: one that was started anew holds other weights."""

    def __init__(self, queues: Queues, thread: threading.Thread, backend: Server) -> None:
        super().__init__(queues, thread)
        self._backend, self._heard = backend, time.monotonic()

    def receive(self, seconds: float) -> Sequence[Reply]:
        """See Wire."""
        replies = super().receive(seconds)
        if any(not isinstance(reply, Beat) for reply in replies):
            self._heard = time.monotonic()
        elif time.monotonic() - self._heard > APART:
            self._backend.probe()
            self._heard = time.monotonic()
        return replies
