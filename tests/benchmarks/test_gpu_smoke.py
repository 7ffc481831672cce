"""The first run on a GPU, without one: each way in which a part can end is reported, and the parts themselves work."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch
from benchmarks.gpu import make_model
from benchmarks.gpu_smoke import Report, missing, start, table
from benchmarks.smoke_parts import PARTS, Part
from benchmarks.smoke_place import Place

from benchmarks import gpu_smoke
from tests.benchmarks import smoking


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place("cpu", tmp_path_factory.mktemp("smoke"), gpu_smoke.SMALL)
    make_model(made.model, made.shape)
    return made


def test_every_end_is_reported_and_does_not_end_the_others(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"hanging": 8.0}
    found = {name: start(name, place, limits.get(name, 120.0), "tests.benchmarks.smoking") for name in smoking.PARTS}
    assert {name: each.status for name, each in found.items()} == {
        "good": "pass",
        "talking": "pass",
        "wrong": "fail",
        "absent": "not here",
        "crashing": "fail",
        "hanging": "fail",
    }
    assert found["good"].figures == {"device": "cpu", "share": 0.5}
    assert found["wrong"].why.splitlines()[-1] == "AssertionError: the numbers differ by 3"
    assert found["absent"].why == "a package is not installed"
    assert found["crashing"].why.startswith("killed by signal 9")
    assert found["hanging"].why.startswith("it took longer than 8 s")
    child = int((place.folder / "child").read_text())
    for _ in range(50):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            break
        time.sleep(0.1)
    else:
        os.kill(child, 9)
        pytest.fail("what a part had started was left")
    monkeypatch.setattr(gpu_smoke, "PARTS", smoking.PARTS)
    lines = table(list(found.values())).splitlines()
    assert [line.split()[0] for line in lines[:6]] == list(smoking.PARTS)
    assert "share 0.5" in lines[0]
    assert "== wrong (the wrong part)" in lines
    assert "== absent (the absent part)" not in lines


def test_a_failure_is_the_status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def started(name: str, *_: object) -> Report:
        return Report(name, "fail" if name == "engine" else "pass")

    monkeypatch.setattr(gpu_smoke, "start", started)
    assert gpu_smoke.main(["--device", "cpu", "--only", "masters"]) == 0
    assert gpu_smoke.main(["--device", "cpu", "--only", "masters", "engine"]) == 1
    assert gpu_smoke.main(["--device", "cpu", "--minutes", "0", "--only", "engine"]) == 0
    assert "the 0 minutes are over" in capsys.readouterr().out


def test_without_a_gpu_all_is_not_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert gpu_smoke.main(["--json", str(tmp_path / "report.json")]) == 0
    parts = json.loads((tmp_path / "report.json").read_text())["parts"]
    assert [each["name"] for each in parts] == list(PARTS)
    assert {(each["status"], each["why"]) for each in parts} == {("not here", "torch sees no GPU")}
    assert gpu_smoke.main(["--list"]) == 0
    assert all(part.shows in capsys.readouterr().out for part in list(PARTS.values())[:1])


def test_what_a_part_needs() -> None:
    two, alone = Part("", smoking.good, gpus=2), Part("", smoking.good, cpu=False)
    assert missing(two, "cpu", 0) == missing(two, "cuda", 2) == missing(alone, "cuda", 1) == ""
    assert missing(two, "cuda", 1) == "it needs 2 GPUs, torch sees 1"
    assert missing(alone, "cpu", 0) == "it needs a GPU"


@pytest.mark.parametrize("name", ["device", "masters", "scoring", "engine", "activations", "lora"])
def test_parts_that_a_cpu_can_run(place: Place, name: str) -> None:
    found = PARTS[name].run(place)
    assert found
    json.dumps(found)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["learning", "kinds", "resume", "workers", "compiled", "ranks", "shards"])
def test_further_parts_that_a_cpu_can_run(place: Place, name: str) -> None:
    assert PARTS[name].run(place)
