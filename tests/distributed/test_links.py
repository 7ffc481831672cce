"""The driver's connections to the other ranks: of those who are ranks, whoever else comes."""

from __future__ import annotations

import socket
import threading
import time
from queue import Queue
from typing import Any

import pytest

from cohort.distributed import links
from cohort.distributed.failing import RankLost
from cohort.distributed.links import meet
from cohort.distributed.world import World


class Told:
    """What the driver tells, for two others."""

    def __init__(self) -> None:
        self.queue: Queue[Any] = Queue()
        self.place = threading.Event()

    def tell(self, what: Any) -> None:
        self.port = what[0]
        self.place.set()
        for _ in range(2):
            self.queue.put(what)

    def told(self) -> Any:
        return self.queue.get(timeout=10)


def rank(number: int) -> World:
    return World(number, 3, number, 3)


def come(way: Told, number: int, out: dict[int, dict[int, socket.socket]]) -> None:
    out[number] = meet(rank(number), way)


def test_who_is_no_rank_is_sent_away_and_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "SAYING", 0.2)
    way, out = Told(), {}
    driver = threading.Thread(target=come, args=(way, 0, out))
    driver.start()
    assert way.place.wait(10)
    strangers = [socket.create_connection(("127.0.0.1", way.port)) for _ in range(3)]
    # One says nothing, one something else, one is gone again.
    strangers[1].sendall(b"GET / HTTP/1.1\r\n".ljust(32, b"-") + (1).to_bytes(4, "big"))
    strangers[2].close()
    for number in (1, 2):
        threading.Thread(target=come, args=(way, number, out)).start()
    driver.join(10)
    assert sorted(out[0]) == [1, 2]
    while len(out) < 3:
        time.sleep(0.01)
    for number, link in out[0].items():
        assert link.gettimeout() is None
        link.sendall(bytes([number]))
        assert out[number][0].recv(1) == bytes([number])
    assert strangers[1].recv(1) == b""
    for each in (*strangers, *out[0].values(), out[1][0], out[2][0]):
        each.close()


def test_a_rank_that_does_not_come_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "MEETING", 0.3)
    way, out = Told(), {}
    late = threading.Thread(target=come, args=(way, 1, out))
    late.start()
    with pytest.raises(RankLost, match="rank 2 could not be reached"):
        meet(rank(0), way)
    late.join(10)
