"""A small run that is made with any engine, and deaths in the middle of its steps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cohort.engine.pool.session import PoolSession
from cohort.training.config import make_config
from cohort.training.display import Display
from cohort.training.run import Result, train
from tests.helpers import tiny_policy

ROWS = [{"prompt": f"{a}+{b}=", "answer": str(a + b)} for a in range(4) for b in range(4)]


def model(folder: Path) -> Path:
    """The folder of a tiny model."""
    tiny_policy("qwen3").save(folder)
    return folder


def base(folder: Path, out: Path) -> dict[str, Any]:
    """Of a run of four steps."""
    return {
        "model": str(folder),
        "data": ROWS,
        "reward": ["format:[0-4]", "0.5*length"],
        "steps": 4,
        "prompts_per_step": 4,
        "group_size": 3,
        "max_new_tokens": 16,
        "lr": 3e-3,
        "updates": 2,
        "tensorboard": False,
        "show_every": 0,
        "record_every": 0,
        "reward_process": "here",
        "out": str(out),
        "engine_wait": 60.0,
        "slots": 8,
    }


def run(values: dict[str, Any], **changes: Any) -> Result:
    return train(make_config(values, changes), display=Display(quiet=True))


def numbers(result: Result) -> list[dict[str, float]]:
    """Of each step what does not depend on who drew it, when, and how fast."""
    return [
        {name: value for name, value in step.items() if not name.startswith(("engine/", "time/"))}
        for step in result.metrics
    ]


def when_dealt(monkeypatch: pytest.MonkeyPatch, session: int, do: Callable[[PoolSession], None]) -> threading.Event:
    """Do something when a session of a pool, counted from 0, has just given its requests to members; set when it is done."""
    done = threading.Event()
    before = PoolSession._deal

    def dealt(self: PoolSession) -> None:
        pending = bool(self._pending)
        before(self)
        if pending and self.id == session and not done.is_set():
            done.set()
            do(self)

    monkeypatch.setattr(PoolSession, "_deal", dealt)
    return done
