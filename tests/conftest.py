"""Shared set-up: one line a method at the end of a run of the vectors, and quiet deterministic torch."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock


@pytest.fixture(autouse=True, scope="session")
def _threads() -> None:
    # Fixed, so that results do not depend on how many test processes share the machine.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def micro_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the policy of tests/micro.py is kept."""
    return tmp_path_factory.mktemp("micro")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """By name, the folder of a tiny model of tests/model_folders.py; tests that change it copy it first."""
    from tests.model_folders import make_folder

    root = tmp_path_factory.mktemp("models")

    def made(name: str) -> Path:
        folder = root / name
        return folder if folder.exists() else make_folder(name, folder)

    return made


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, whatever the machine has."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def _toy_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with the warm-started toy model in it, made once for all workers (a minute or more)."""
    from cohort.training import toy

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = Path(os.environ.get("COHORT_TEST_CACHE") or shared / "cache")
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, FileLock(folder / "making.lock"):
        patch.setenv("COHORT_CACHE", str(folder))
        toy.folder(lambda _: None)
    return folder


@pytest.fixture
def toy_cache(_toy_made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of this test, with the warm-started toy model in it."""
    monkeypatch.setenv("COHORT_CACHE", str(_toy_made))
    return _toy_made


def pytest_collection_finish() -> None:
    """What was imported and collected lives to the end: looking through it again and again took a tenth of the suite's time."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One test of the toy first, so that its model is there when the others need it, at the end."""
    toy = [item for item in items if "toy_cache" in getattr(item, "fixturenames", ())]
    others = [item for item in items if "toy_cache" not in getattr(item, "fixturenames", ())]
    items[:] = [*toy[:1], *others, *toy[1:]]


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
