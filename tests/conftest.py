"""Shared set-up: one line a method at the end of a run of the vectors, and quiet deterministic torch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _threads() -> None:
    # Fixed, so that results do not depend on how many test processes share the machine.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def micro_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the policy of tests/micro.py is kept."""
    return tmp_path_factory.mktemp("micro")


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, whatever the machine has."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def nursery_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder with the warm-started nursery model in it, made once a session (a minute)."""
    from cohort.training import nursery

    folder = Path(os.environ.get("COHORT_TEST_CACHE") or tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COHORT_CACHE", str(folder))
        nursery.folder(lambda _: None)
        yield folder


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """`SLUG: N passed, M failed` for every vector file, in cases."""
    passed: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    missing: list[str] = []
    sweep: list[str] = []
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, []):
            properties = dict(getattr(report, "user_properties", []))
            if "sweep" in properties and report.when == "call":
                sweep.append(properties["sweep"])
            if "golden" in properties and (report.when == "call" or outcome == "error"):
                (passed if outcome == "passed" else failed)[properties["golden"]] += 1
            elif "golden-missing" in properties and report.when == "call":
                missing.append(properties["golden-missing"])
    if passed or failed or missing:
        terminalreporter.section("vectors")
        for slug in sorted({*passed, *failed}):
            terminalreporter.write_line(f"{slug}: {passed[slug]} passed, {failed[slug]} failed")
        if missing:
            terminalreporter.write_line(f"missing (vectors, but no such method): {', '.join(sorted(missing))}")
    if sweep:
        terminalreporter.section("ten steps with every method")
        for line in sorted(sweep):
            terminalreporter.write_line(line)
