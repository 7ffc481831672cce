"""A tiny model and a task, as a configuration that runs in well under a second a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers import tiny_policy

ROWS = [{"prompt": f"{a}+{b}=", "answer": str(a + b), "solution": f"{a + b}"} for a in range(6) for b in range(6)]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_policy("qwen3").save(folder)
    return folder


@pytest.fixture
def base(model_folder: Path, tmp_path: Path) -> dict[str, Any]:
    """Keys of a configuration that trains the tiny model."""
    return {
        "model": str(model_folder),
        "data": ROWS,
        "reward": ["format:[0-4]", "0.5*length"],
        "steps": 4,
        "prompts_per_step": 3,
        "group_size": 4,
        "max_new_tokens": 8,
        "lr": 1e-3,
        "out": str(tmp_path / "run"),
        "tensorboard": False,
        "show_every": 0,
    }
