"""A connection from the driver to each other rank, beside those that torch has."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import socket
import time
from typing import Any, Protocol

from cohort.distributed.failing import RankLost
from cohort.distributed.world import World

# Seconds in which all ranks come, and that somebody who has come may take to say who that is.
MEETING, SAYING = 120.0, 10.0
# Seconds of silence after which a machine is asked whether it is still there, and questions without an answer.
SILENCE, ASKED = 20, 6


class Way(Protocol):
    """How the driver tells the others something."""

    def tell(self, what: Any) -> None: ...

    def told(self) -> Any: ...


def meet(world: World, way: Way) -> dict[int, socket.socket]:
    """Rank -> the connection to it: in the driver to all others, in these to the driver.

    The driver tells a key, which each shows; whoever else comes is sent away.

    Raises:
        RankLost: one did not come in time.
    """
    here = world.local_size == world.size
    if not world.driver:
        port, key = way.told()
        link = socket.create_connection(("127.0.0.1" if here else os.environ["MASTER_ADDR"], port), MEETING)
        link.sendall(key + world.rank.to_bytes(4, "big"))
        return {0: _lasting(link)}
    key, missing = secrets.token_bytes(32), {*range(1, world.size)}
    found: dict[int, socket.socket] = {}
    with socket.create_server(("127.0.0.1" if here else "", 0), backlog=max(128, world.size)) as server:
        way.tell((server.getsockname()[1], key))
        until = time.monotonic() + MEETING
        while missing:
            server.settimeout(max(0.1, until - time.monotonic()))
            with contextlib.suppress(TimeoutError):
                link, _ = server.accept()
                rank = _shown(link, key)
                if rank in missing:
                    missing.remove(rank)
                    found[rank] = _lasting(link)
                else:
                    link.close()
            if missing and time.monotonic() > until:
                raise RankLost(f"rank {min(missing)} could not be reached within {MEETING:.0f} s")
    return found


def _shown(link: socket.socket, key: bytes) -> int:
    """The rank that somebody shows to be; -1 for anyone else."""
    link.settimeout(SAYING)
    said = b""
    with contextlib.suppress(OSError):
        while len(said) < len(key) + 4 and (piece := link.recv(len(key) + 4 - len(said))):
            said += piece
    right = len(said) == len(key) + 4 and hmac.compare_digest(said[: len(key)], key)
    return int.from_bytes(said[len(key) :], "big") if right else -1


def _lasting(link: socket.socket) -> socket.socket:
    """A connection that waits as long as both ends are there, and knows when the other machine is not."""
    link.settimeout(None)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", SILENCE), ("TCP_KEEPINTVL", SILENCE), ("TCP_KEEPCNT", ASKED)):
        if hasattr(socket, name):
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return link
