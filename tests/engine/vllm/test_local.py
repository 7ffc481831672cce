"""vLLM in the trainer's process: the processes that it starts beside it."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from cohort.engine.vllm import local
from cohort.engine.vllm.local import Local
from cohort.lifeline import Lifeline
from tests.engine.vllm.fake_module import FakeModule
from tests.helpers import tiny_policy


def test_its_core_ends_with_the_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeModule(monkeypatch)
    policy = tiny_policy("qwen3")
    policy.save(tmp_path)
    policy.name = str(tmp_path)
    cores: list[Any] = []
    held: list[int] = []

    class LLM(local.import_vllm().LLM):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            core = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,), daemon=True)
            core.start()
            cores.append(core)

    class Holding(Lifeline):
        def __init__(self, *targets: int) -> None:
            super().__init__(*targets)
            held.extend(targets)

    monkeypatch.setattr(local.import_vllm(), "LLM", LLM)
    monkeypatch.setattr(local, "Lifeline", Holding)
    backend = Local(policy, memory=0.5, slots=4)
    assert fake.made
    assert held == [cores[0].pid]
    guard = backend._lifeline._guard
    # What happens when this process is gone: its side of the lifeline closes.
    guard.stdin.close()
    cores[0].join(20)
    assert cores[0].exitcode == -9
    backend.close()
    assert backend._lifeline is None
