"""What trains a tiny model, and a comparison that was made with it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cohort.experiments.comparison import Comparison
from tests.experiments.made import SUMS, started
from tests.helpers import tiny_policy


@pytest.fixture(scope="package")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What trains a tiny model in two steps."""
    root = tmp_path_factory.mktemp("given")
    tiny_policy().save(root / "tiny")
    (root / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SUMS))
    return {
        "model": str(root / "tiny"),
        "data": str(root / "sums.jsonl"),
        "reward": ["format:[0-4]", "0.5*length"],
        "steps": 2,
        "prompts_per_step": 2,
        "group_size": 4,
        "max_new_tokens": 6,
        "lr": 1e-3,
        "threads": 1,
    }


@pytest.fixture(scope="package")
def done(options: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """A finished comparison of two methods with two seeds, measured on two data sets."""
    root = tmp_path_factory.mktemp("compared")
    with contextlib.chdir(root):
        found = started(options, Path("out"), transfer={"sums": options["data"]})
    return replace(found, folder=root / "out")
