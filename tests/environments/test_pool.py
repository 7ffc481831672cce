"""Environments in processes of their own: what they do ends their own episode, and what they hang is replaced."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from cohort.environments import Observation, Step
from cohort.environments.base import EnvironmentFailed, Gone, Late
from cohort.environments.pool import Pool
from cohort.environments.remote import Remote
from cohort.environments.spec import parse
from cohort.errors import UsageError
from tests.environments import hostile

FILE = Path(hostile.__file__)
SAID = {"role": "assistant", "content": "x"}


def pool_of(what: str = "Hostile", **given: Any) -> Pool:
    return Pool(parse(f"{FILE}:{what}"), **{"timeout": 1.0, "processes": 1, **given})


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    made = pool_of(timeout=10.0)
    made.start()
    yield made
    made.close()


def lived(pool: Pool, do: str, **row: Any) -> Step:
    """The second step of an episode."""
    world = Remote(pool)
    try:
        assert world.reset({"prompt": "p", "do": do, **row}, 3).result() == Observation("p", [], [])
        assert world.step(SAID).result() == Step(Observation("go on", [], []), 0.5)
        step: Step = world.step(SAID).result()
        return step
    finally:
        closed = world.close()
        assert closed is None or closed.result(5) is None


@pytest.mark.parametrize("do", ["fine", "print", "print much", "read", "fork"])
def test_what_does_no_harm_goes_on(pool: Pool, do: str) -> None:
    assert lived(pool, do) == Step(None, 1.0, done=True)
    assert len(pool.hosts) == 1
    if do == "print":
        text = ""
        while "past Python" not in text:
            text += pool.printed()
        assert "a line of its own\n" in text


# What is no answer, of which the parent says why (see test_base and test_runner), arrives as it is.
@pytest.mark.parametrize(
    ("do", "content"), [("large", 5_000_000), ("half a character", 1), ("nan", 4), ("unknown component", 4)]
)
def test_answers_arrive_as_they_are(pool: Pool, do: str, content: int) -> None:
    step = lived(pool, do)
    assert isinstance(step.observation, Observation)
    assert len(step.observation.content) == content


@pytest.mark.parametrize(
    ("do", "said"),
    [
        ("raise", rf"KeyError: 'no such room' \({re.escape(str(FILE))}, line \d+\)"),
        ("exit", r"it asked to end the process \(SystemExit: 3\)"),
        ("interrupt", "KeyboardInterrupt"),
        ("a text", r"step gives a cohort.environments.Step, not str \('no step'\)"),
        ("nothing", "not NoneType"),
        ("cannot be sent", "it holds _thread.lock"),
        ("itself", "cannot be sent"),
        ("media", "it holds builtins.object"),
        ("no message", "a message has 'role' and 'content'"),
        ("too large", "its answer has 17 MB, of at most 16"),
    ],
)
def test_what_fails_fails_alone(pool: Pool, do: str, said: str) -> None:
    neighbour = Remote(pool)
    neighbour.reset({"prompt": "p", "do": "fine"}, 0).result()
    with pytest.raises(EnvironmentFailed, match=said):
        lived(pool, do)
    neighbour.step(SAID).result()
    assert neighbour.step(SAID).result().done
    neighbour.close()
    assert len(pool.hosts) == 1


def test_what_fails_at_its_beginning_says_so(pool: Pool) -> None:
    with pytest.raises(EnvironmentFailed, match="KeyError"):
        Remote(pool).reset({"prompt": "p", "do": "raise", "at": "reset"}, 0).result()
    assert Remote(pool).close() is None


@pytest.mark.parametrize(("do", "how"), [("end the process", "exit status 7"), ("abort", "signal SIGABRT")])
def test_a_process_that_dies_is_replaced_and_others_in_it_live_on(pool: Pool, do: str, how: str) -> None:
    idle, young, asked = Remote(pool), Remote(pool), Remote(pool)
    for world, what in ((idle, "fine"), (young, "fine"), (asked, "hang")):
        world.reset({"prompt": "p", "do": what}, 0).result()
    first = [idle.step(SAID).result(), asked.step(SAID).result()][0]
    answer = asked.step(SAID)
    with pytest.raises(Gone, match=how):
        lived(pool, do)
    # What was asked when it happened may have been the cause.
    with pytest.raises(Gone, match=how):
        answer.result()
    assert asked.close() is None
    # What was not lives through its episode again.
    assert idle.step(SAID).result() == Step(None, 1.0, done=True)
    assert young.step(SAID).result() == first
    for world in (idle, young):
        closed = world.close()
        assert closed is not None
        assert closed.result(5) is None


def test_one_that_answers_differently_the_second_time_fails(pool: Pool) -> None:
    world = Remote(pool)
    world.reset({"prompt": "p", "do": "tell the process"}, 0).result()
    world.step(SAID).result()
    world.step(SAID).result()
    with pytest.raises(Gone):
        lived(pool, "end the process")
    with pytest.raises(EnvironmentFailed, match="it answered differently"):
        world.step(SAID).result()
    with pytest.raises(Gone):
        lived(pool, "end the process", at="reset")


@pytest.mark.parametrize("kind", ["Hostile", "HostileAsync"])
def test_one_that_hangs_fails_alone_and_its_process_goes_when_the_others_are_done(kind: str) -> None:
    pool = pool_of(kind, timeout=1.0)
    try:
        pool.start()
        hanging, neighbour = Remote(pool), Remote(pool)
        for world, do in ((hanging, "hang"), (neighbour, "fine")):
            world.reset({"prompt": "p", "do": do}, 0).result()
            world.step(SAID).result()
        (host,) = pool.hosts
        with pytest.raises(Late, match=r"no answer within 1 s \(environment_timeout\); it is in .*hostile.py, line"):
            hanging.step(SAID).result()
        assert hanging.close() is None
        assert neighbour.step(SAID).result().done
        # Where something hangs nothing new begins.
        assert lived(pool, "fine").done
        assert not host.dead
        assert neighbour.close().result(5) is None
        assert host.dead
        assert len(pool.hosts) == 1
    finally:
        pool.close()


def test_an_answer_that_comes_too_late_is_no_answer() -> None:
    pool = pool_of("Hostile?wait=1.4", timeout=1.0)
    try:
        pool.start()
        late, neighbour = Remote(pool), Remote(pool)
        for world in (late, neighbour):
            world.reset({"prompt": "p", "do": "fine"}, 0).result()
        (host,) = pool.hosts
        with pytest.raises(Late, match=r"no answer within 1 s"):
            late.step(SAID).result()
        time.sleep(0.6)
        assert not host.calls
        assert not host.dead
        closed = neighbour.close()
        assert closed is not None
        assert closed.result(5) is None
    finally:
        pool.close()


def test_a_process_that_hangs_as_a_whole_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cohort.environments.pool.PATIENCE", 0.5)
    pool = pool_of(timeout=1.0)
    try:
        pool.start()
        neighbour = Remote(pool)
        neighbour.reset({"prompt": "p", "do": "fine"}, 0).result()
        holding, waiting = Remote(pool), Remote(pool)
        for world in (holding, waiting):
            world.reset({"prompt": "p", "do": "hold everything"}, 0).result()
            world.step(SAID).result()
        # Both wait for the process that the first one holds; either's time can be up first.
        for answer in [world.step(SAID) for world in (holding, waiting)]:
            with pytest.raises(Late, match=r"no answer within 1 s"):
                answer.result(10)
        assert neighbour.step(SAID).result(5).reward == 0.5
        assert lived(pool, "fine").done
    finally:
        pool.close()


@pytest.mark.parametrize("kind", ["Hostile", "HostileAsync"])
def test_environments_of_a_process_wait_side_by_side(kind: str) -> None:
    pool = pool_of(f"{kind}?wait=0.1", timeout=20.0, processes=2)
    try:
        pool.start()
        worlds = [Remote(pool) for _ in range(200)]
        wait([world.reset({"prompt": "p", "do": "fine"}, i) for i, world in enumerate(worlds)])
        assert [len(host.living) for host in pool.hosts] == [100, 100]
        began = time.monotonic()
        steps = [answer.result() for answer in [world.step(SAID) for world in worlds]]
        # One after the other they would take 10 seconds in each process.
        assert time.monotonic() - began < 5
        assert all(step.reward == 0.5 for step in steps)
        wait([answer for world in worlds if (answer := world.close())])
        assert not any(host.living for host in pool.hosts)
    finally:
        pool.close()


def test_an_answer_can_be_awaited(pool: Pool) -> None:
    async def live(world: Remote) -> Step:
        await world.reset({"prompt": "p", "do": "fine"}, 0)
        await world.step(SAID)
        step: Step = await world.step(SAID)
        return step

    async def both() -> list[Step]:
        return list(await asyncio.gather(live(Remote(pool)), live(Remote(pool))))

    assert [step.reward for step in asyncio.run(both())] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("Unmade", "OSError: no disk"),
        ("fails", "ValueError: no server"),
        ("other", r"what it makes, int \(3\), has no reset and no step"),
        ("NoStep", r"the class NoStep has no step\(message\)"),
        ("Hostile?pace=2", "unexpected keyword argument 'pace'"),
        ("Missing", "has no class 'Missing'"),
    ],
)
def test_what_cannot_be_made_is_told_before_anything_begins(what: str, said: str) -> None:
    pool = pool_of(what)
    with pytest.raises(UsageError, match=said) as told:
        pool.start()
    assert str(told.value).count("environment '") == 1
    assert not pool.hosts


class Counting:
    """Given from Python, with what it closes over."""

    def reset(self, row: Any, seed: int) -> str:
        self.pid = os.getpid()
        return f"{row['prompt']} {seed}"

    async def step(self, message: Any) -> Step:
        return Step(f"{self.pid} {START}", 1, done=False)


START = 5


@pytest.mark.parametrize("given", [Counting, lambda: Counting()])
def test_classes_and_functions_from_python_live_there_too(given: Any) -> None:
    pool = Pool(parse(given), timeout=5.0, processes=1)
    try:
        assert pool.start().rewards
        world = Remote(pool)
        assert world.reset({"prompt": "p"}, 9).result().content == "p 9"
        pid, start = world.step(SAID).result().observation.content.split()
        assert (int(pid) != os.getpid(), start) == (True, "5")
        assert pool.rows() is None
    finally:
        pool.close()


def test_what_cannot_be_sent_is_told() -> None:
    held = open(FILE)  # noqa: SIM115

    def make() -> Any:
        return held

    with pytest.raises(UsageError, match=r"environment <environment make given from Python>: .* cannot be sent"):
        Pool(parse(make), timeout=1.0)
    held.close()


def test_it_may_have_rows_of_its_own() -> None:
    pool = pool_of("OwnRows")
    try:
        assert pool.start().components == ("style",)
        rows = pool.rows()
        assert rows is not None
        assert [row["prompt"] for row in rows] == [f"task {i}" for i in range(4)]
        assert pool.rows(held_out=True) == [{"prompt": "held out", "do": "nothing bad"}]
    finally:
        pool.close()


def test_processes_end_with_the_pool() -> None:
    pool = pool_of(processes=2)
    pool.start()
    waiting = Remote(pool)
    answer = waiting.reset({"prompt": "p", "do": "hang", "at": "reset"}, 0)
    (host,) = pool.hosts
    assert host.process is not None
    pid = host.process.pid
    pool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    for late in (answer.result, lambda: Remote(pool).reset({}, 0)):
        with pytest.raises(EnvironmentFailed, match="the run is over"):
            late()
