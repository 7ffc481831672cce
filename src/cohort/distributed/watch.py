"""Ranks know at once when one of them has ended, and none waits for it."""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from cohort.distributed.failing import Failure, RankLost
from cohort.distributed.links import meet
from cohort.distributed.record import AGAIN, launched, note
from cohort.distributed.world import World

# Seconds in which the main thread can end by itself: the driver's once a rank is lost, and another's once the driver has
# ended.
GRACE, LEAVE = 20.0, 5.0
# What a rank says that ends because the run is over, and what the driver says that is about to tell something.
BYE, CALL = b"bye", b"!"


class Watch:
    """A thread of each rank: in the driver it watches all others, in the others the driver, and in each who started it.

    Where one ends before the run does, the main thread has a moment to say so; then the process ends.

    Args:
        say: tells the user something.

    Attributes:
        lost: why the run cannot go on.
        broken: this rank has left an operation of all in its middle, so that nothing more can be done together.
    """

    def __init__(self, world: World, say: Callable[[str], None] = lambda _: None) -> None:
        self.world, self.say = world, say
        self.lost: BaseException | None = None
        self.broken = False
        self._calls = threading.Semaphore(0)
        self._over, self._parent = False, os.getppid()
        self._links = {link: rank for rank, link in meet(world, world).items()}
        self._told = dict.fromkeys(self._links, b"")
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._watch, name="cohort-watch", daemon=True)
        self._thread.start()

    def tell(self, what: Any) -> None:
        """Tell all other ranks something. For the driver."""
        for link in self._links:
            with contextlib.suppress(OSError):
                link.sendall(CALL)
        self.world.tell(what)

    def told(self) -> Any:
        """What the driver tells next, however long that takes. For the others."""
        self._calls.acquire()
        return self.world.told()

    def check(self) -> None:
        """Go on only while all are there.

        Raises:
            RankLost: one is not.
        """
        if self.lost is not None:
            raise self.lost
        if self.broken:
            raise RankLost("what all ranks did together was left in its middle")

    def explain(self, error: BaseException, within: float = 2.0) -> BaseException:
        """What an error of an operation with other ranks comes from: where one has ended, that is known in a moment."""
        until = time.monotonic() + within
        while self.lost is None and time.monotonic() < until:
            time.sleep(0.01)
        return error if self.lost is None else self.lost

    def close(self, failure: Failure | None = None) -> None:
        """The run is over, here and elsewhere; or this rank has failed, which those who watch it are told; or one is lost."""
        self._over = True
        for link in self._links:
            with contextlib.suppress(OSError):
                if failure is not None:
                    link.sendall(pickle.dumps(failure))
                elif not isinstance(self.lost, RankLost) and not self.broken:
                    link.sendall(BYE)
                link.shutdown(socket.SHUT_WR)
        self._wake.close()
        self._thread.join()

    # the thread ----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for each in [*self._links, self._woken]:
                selector.register(each, selectors.EVENT_READ, each)
            while not self._over:
                for key, _ in selector.select(timeout=1.0):
                    link: socket.socket = key.data
                    if link is self._woken:
                        break
                    said = _received(link)
                    if said:
                        self._hear(link, said)
                        continue
                    selector.unregister(link)
                    self._ended(self._links[link], self._told[link])
                if os.getppid() != self._parent:
                    self._parent = os.getppid()
                    self._orphaned()

    def _hear(self, link: socket.socket, said: bytes) -> None:
        # Calls come before last words, and these hold anything.
        while said.startswith(CALL) and not self.world.driver and not self._told[link]:
            self._calls.release()
            said = said[len(CALL) :]
        self._told[link] += said

    def _ended(self, rank: int, said: bytes) -> None:
        """A rank has ended, with some last words."""
        if self._over or self.lost is not None or (said == BYE and self.world.driver):
            return
        status = AGAIN
        if said == BYE:
            # What this rank is in the middle of, the driver has left.
            status = 0
        elif said:
            try:
                self.lost = pickle.loads(said).raised()
            except Exception:  # whatever half a message may be read as
                self.lost = RankLost(f"rank {rank} has ended in the middle of its last words")
            status = AGAIN if isinstance(self.lost, RankLost) else 0
        else:
            self.lost = RankLost(f"rank {rank} has ended without a word: it was killed, or its machine is gone")
            # One of those who are left is enough, and the driver says it when it ends.
            if self.world.rank == 1:
                self.say(str(self.lost))
        threading.Thread(target=self._end, args=(status,), name="cohort-end", daemon=True).start()

    def _end(self, status: int) -> None:
        """Whatever the main thread waits for, it does not come."""
        time.sleep(GRACE if self.world.driver else 0.0 if status else LEAVE)
        if self._over:
            return
        if self.world.driver:
            self.say(f"{self.lost}; the run ends without more ado")
            if status != AGAIN:
                # What has failed is not tried again; torchrun takes any status for a reason to.
                with contextlib.suppress(OSError):
                    note(1)
                status = 0 if launched() else 1
        os._exit(status)

    def _orphaned(self) -> None:
        """Who started this process is gone, and nobody would start it again: the run ends, saved."""
        if self.world.driver:
            os.kill(os.getpid(), signal.SIGTERM)


def _received(link: socket.socket) -> bytes:
    try:
        return link.recv(1 << 16)
    except OSError:
        return b""
