"""A tiny model, the folder that the command is run in, and a run that was made there."""

from __future__ import annotations

import pytest

from tests.cli.command import SMALL, run, with_sums
from tests.helpers import tiny_policy


@pytest.fixture(autouse=True)
def _no_warm_start(monkeypatch):
    """The default model takes a minute to make: no test of the command may ask for it."""

    def folder(*_):
        raise AssertionError("a test asked for the default model")

    monkeypatch.setattr("cohort.training.toy.folder", folder)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A model folder of a few thousand parameters."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny_policy().save(path)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder that the command is run in, with the file sums.jsonl."""
    monkeypatch.chdir(tmp_path)
    return with_sums(tmp_path)


@pytest.fixture(scope="package")
def done(model, tmp_path_factory):
    """A run of two steps: its folder, and what the command printed."""
    folder = with_sums(tmp_path_factory.mktemp("work"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        command = ["train", "grpo", "--model", model, "--data", "sums.jsonl", "--reward", "number", "--steps", "2"]
        status, out, err = run(*command, *SMALL)
    assert status == 0, err
    return folder / "runs" / "grpo-tiny-1", out, err
