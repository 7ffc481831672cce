"""Ending a run in its middle, by a signal or an error: the last whole step is saved."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cohort.training import interrupt, snapshot
from cohort.training.config import make_config
from cohort.training.display import Display
from cohort.training.precision import MasterWeights
from cohort.training.run import train
from tests.training.test_run import run, same, weights


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_whoever_asks_for_the_end_gets_the_step_finished_and_saved(base: dict[str, Any], number: int) -> None:
    handler = signal.getsignal(number)
    display = Display(quiet=True)
    display.step = lambda step, *a, **k: signal.raise_signal(number) if step == 2 else None  # type: ignore[method-assign]
    stopped = train(make_config(base), display=display)
    assert stopped.stopped
    assert [p.name for p in (stopped.folder / "checkpoints").iterdir()] == ["step-000002"]
    assert signal.getsignal(number) is handler


def test_under_nohup_a_closed_terminal_is_no_reason(base: dict[str, Any]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        display = Display(quiet=True)
        display.step = lambda *a, **k: signal.raise_signal(signal.SIGHUP)  # type: ignore[method-assign]
        assert not train(make_config(base), display=display).stopped
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_request_to_every_process_of_the_job_lets_rewards_finish(base: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "reward.py"
    file.write_text(
        "import os, signal\n\n\ndef f(completions, **_):\n    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return [float(len(c) % 2) for c in completions]\n"
    )
    assert len(run(base, reward=f"{file}:f", steps=2).metrics) == 2


def test_a_request_that_arrives_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    end = interrupt.Interrupt(lambda _: None)
    with end.watching():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        assert end.asked
        monkeypatch.setattr(interrupt, "SAME", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_what_is_being_written_is_finished_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "SAME", 0.0)
    end, done = interrupt.Interrupt(lambda _: None), []

    def write(times: int) -> None:
        with end.shield():
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
            done.append(times)

    with end.watching():
        write(1)
        with pytest.raises(KeyboardInterrupt):
            write(1)
        with pytest.raises(KeyboardInterrupt):
            write(2)
    assert done == [1, 1]


def twice() -> None:
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)


def broken() -> None:
    raise ZeroDivisionError("in the middle of an update")


@pytest.mark.parametrize("what", [twice, broken])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("method", ["grpo+knapsack", "ppo"])
def test_an_end_in_the_middle_of_a_step_leaves_the_step_before_it(
    base: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: Callable[[], None],
    after: bool,
    method: str,
) -> None:
    base = {**base, "updates": 3, "method": method}
    whole = run(base, out=str(tmp_path / "whole"))
    monkeypatch.setattr(interrupt, "SAME", 0.0)
    real, calls = MasterWeights.step, []

    def step(self: MasterWeights) -> None:
        calls.append(1)
        if len(calls) == 8 and not after:
            what()
        real(self)
        if len(calls) == 8 and after:
            what()

    monkeypatch.setattr(MasterWeights, "step", step)
    error = KeyboardInterrupt if what is twice else ZeroDivisionError
    with pytest.raises(error) as caught:
        run(base)
    out = Path(base["out"])
    assert "everything up to step 2 is saved in" in caught.value.__notes__[0]
    assert f"--resume --out {out}" in caught.value.__notes__[0]
    assert [p.name for p in (out / "checkpoints").iterdir()] == ["step-000002"]
    assert same(weights(whole.folder), weights(run(base, resume=True).folder))


def test_of_a_large_model_only_what_is_whole_is_saved(base: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "COPIED_CPU", 0)
    real, calls = MasterWeights.step, []

    def step(self: MasterWeights) -> None:
        calls.append(1)
        if len(calls) == 8:
            raise MemoryError
        real(self)

    monkeypatch.setattr(MasterWeights, "step", step)
    with pytest.raises(MemoryError) as caught:
        run(base, updates=3, checkpoint={"every": 2})
    assert "step 3 was in the middle of its updates" in caught.value.__notes__[0]
    assert "step-000002, which --resume continues" in caught.value.__notes__[0]
