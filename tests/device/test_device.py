"""Runs on the pretend GPU: nothing is on the wrong device, and the host waits for the device a few times a step.

What registers the device (tests/device/pretend.py) does so for good, so all checks run in one process of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cohort import registry

ROOT = Path(__file__).parents[2]
TRAINABLE = [name for name in registry.names() if "vision" not in registry.method(name).requires]
# Waits of a step that are not the engine's, of which each decoding step has one.
MOST_WAITS = 10
# Of the whole step of each: with one forward pass, with several, with a critic, with coupled rollouts.
TYPICAL = ("grpo", "dapo", "gspo", "ppo", "copo")
DECODING = "engine/native/"
SHARING = '?{"share": true}'
# What runs in the suite, beside the typical methods: other optimizers, hooks that look into the model, what is kept of
# prompts, wide fields, ways of drawing, what passes keep, adapters, halves, checkpoints.
QUICK = (
    *(f"method:{name}{SHARING}" for name in TYPICAL),
    'method:copo?{"share": true, "micro_tokens": 30}',
    'method:grpo?{"share": true, "micro_tokens": 30, "activations": "stream"}',
    'method:grpo?{"dtype": "auto", "lora": 4}',
    'method:dapo?{"top_p": 0.9, "min_new_tokens": 1, "stop": ["7"]}',
    "method:stosignsgd",
    "method:capo-curvature",
    "method:opd",
    "resumed:grpo",
    "planted:",
)
LONG = (
    *(f"method:{name}" for name in TRAINABLE),
    *(f"method:{name}{SHARING}" for name in TRAINABLE),
    'method:grpo?{"share": true, "micro_tokens": 30, "activations": "checkpoint"}',
    'method:grpo?{"replay_groups": 2}',
    'method:grpo?{"updates": 2, "epochs": 2}',
    "resumed:ppo",
    "resumed:stosignsgd",
    'resumed:grpo?{"lora": 4}',
    'resumed:dapo?{"dtype": "bfloat16"}',
    "compared",
    "episodes:m-grpo(slots=2)",
    "episodes:videochat-m1(kl_beta=0.01)",
)


def run(checks: Sequence[str], policies: Path, folder: Path, timeout: float) -> dict[str, dict[str, Any]]:
    """What each check found, by its name."""
    report = folder / "report.jsonl"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT))), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.device.checking", str(report), str(policies), *checks]
    done = subprocess.run(command, env=environment, timeout=timeout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in report.read_text().splitlines()]
    return {each.pop("check"): each for each in found}


@pytest.fixture(scope="module")
def quick(micro_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return run(QUICK, micro_root, tmp_path_factory.mktemp("device"), 600)


def of_step(found: Mapping[str, Any]) -> tuple[int, str]:
    """Waits of a step that are not decoding's, and all of them as lines."""
    waits: dict[str, int] = found["waits"]
    listed = "\n".join(f"{count:4} {line}" for line, count in waits.items())
    return sum(count for line, count in waits.items() if not line.startswith(DECODING)), listed


def check(name: str, found: Mapping[str, Any]) -> None:
    """Nothing failed, all that is trained is on the device, and steps were made."""
    assert "error" not in found, f"{name}: {found['error']}, at {' < '.join(found['at'])}"
    if name.startswith("method:"):
        assert list(found["devices"]) == ["pretend"]
        assert found["mode"] == "shared", "a fault in trying how to score was taken for a model that cannot"
        assert not found["metrics"]["skipped_updates"]
        assert found["metrics"].get("mismatch_max", 0.0) < (0.2 if "auto" in name else 1e-3)
    if name.startswith("resumed:"):
        assert found["same"]
        assert found["weights"]


@pytest.mark.parametrize("name", [name for name in QUICK if name != "planted:"])
def test_nothing_is_misplaced(quick: dict[str, dict[str, Any]], name: str) -> None:
    check(name, quick[name])


@pytest.mark.parametrize("name", TYPICAL)
def test_the_host_waits_a_few_times_a_step(quick: dict[str, dict[str, Any]], name: str) -> None:
    found = quick[f"method:{name}{SHARING}"]
    count, listed = of_step(found)
    assert count <= MOST_WAITS, f"the host waits {count} times in a step of {name}:\n{listed}"
    decoding = sum(times for line, times in found["waits"].items() if line.startswith(DECODING))
    assert 0 < decoding <= found["decoding_steps"], f"{decoding} waits in {found['decoding_steps']} steps:\n{listed}"


def test_planted_faults_are_caught(quick: dict[str, dict[str, Any]]) -> None:
    """Each is a line that runs on a CPU, and that CUDA refuses, or waits in."""
    found = quick["planted:"]
    assert "error" not in found, found
    assert found["refused"] == dict.fromkeys(found["refused"], True)
    assert len(found["refused"]) >= 6
    assert found["waited"] == dict.fromkeys(found["waited"], 1)
    assert len(found["waited"]) >= 6
    assert not any(found["free"].values()), "what does not have the host wait was counted"


@pytest.mark.exhaustive
def test_every_method_and_part(
    micro_root: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    found = run(LONG, micro_root, tmp_path, 3600)
    failed = []
    for name, each in found.items():
        try:
            check(name, each)
        except AssertionError as error:
            failed.append(str(error))
    assert not failed, "\n".join(failed)
    assert list(found) == list(LONG)
