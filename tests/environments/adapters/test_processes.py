"""Adapters where they live: in processes of their own, named as on the command line."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cohort.environments.pool import Pool
from cohort.environments.remote import Remote
from cohort.environments.spec import Offer, parse
from tests.environments.adapters import needs, say

TASKSETS = Path(__file__).with_name("tasksets")


@contextlib.contextmanager
def living(text: str) -> Iterator[tuple[Pool, Offer]]:
    pool = Pool(parse(text), timeout=60.0, processes=1)
    try:
        yield pool, pool.start()
    finally:
        pool.close()


def ended(remote: Remote) -> None:
    closed: Any = remote.close()
    assert closed is None or closed.result(20) is None


@needs("gymnasium")
def test_gymnasium() -> None:
    with living("gymnasium:FrozenLake-v1?actions=left,down,right,up&is_slippery=false&size=3") as (pool, offer):
        assert offer.components == ()
        rows = pool.rows() or []
        assert [row["seed"] for row in rows] == [0, 1, 2]
        world = Remote(pool)
        assert "[S]FFF" in world.reset(rows[0], 0).result().content
        for move in ("down", "down", "right", "right", "down"):
            step = world.step(say(move)).result()
            assert not step.done
        assert world.step(say("right")).result().reward == 1.0
        ended(world)


@needs("textarena")
def test_textarena_in_self_play() -> None:
    with living("textarena:TicTacToe-v0") as (pool, offer):
        assert offer.components == ("invalid",)
        games = [Remote(pool) for _ in range(8)]
        for seen in [game.reset({"seed": 1}, 0) for game in games]:
            assert seen.result().agent == "player 0"
        for move in "40315":
            steps = [game.step(say(f"[{move}]")) for game in games]
            over = [step.result() for step in steps]
        assert {step.done for step in over} == {True}
        assert over[0].rewards == {"player 0": 1.0, "player 1": -1.0}
        for game in games:
            ended(game)


@needs("verifiers")
def test_verifiers_leaves_no_servers_of_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TASKSETS))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TASKSETS), os.environ.get("PYTHONPATH", "")]))

    def servers() -> set[str]:
        shown = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
        return {line.split()[0] for line in shown.splitlines() if line.rstrip().endswith("-m cohort_tools")}

    before = servers()
    with living("verifiers:cohort-tools") as (pool, offer):
        assert offer.components == ("found",)
        world = Remote(pool)
        seen = world.reset((pool.rows() or [])[0], 0).result()
        name = seen.tools[0]["function"]["name"]
        call = {"function": {"name": name, "arguments": {"name": "ada"}}}
        step = world.step(say("", tool_calls=[call])).result()
        assert step.observation.content[0]["content"] == "1815"
        assert servers() > before
        assert world.step(say("1815")).result().components == {"found": 1.0}
        ended(world)
    until = time.monotonic() + 10
    while servers() > before and time.monotonic() < until:
        time.sleep(0.1)
    assert servers() <= before
