"""Checkpoints that are written while the run goes on."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from threading import Thread

import pytest

from cohort.errors import StorageError
from cohort.training import checkpoint
from cohort.training.interrupt import Interrupt
from cohort.training.saving import Saving


class Slow:
    """A model whose weights are written when it is said."""

    def __init__(self) -> None:
        self.written: Future[None] = Future()
        self.folders: list[Path] = []

    def save(self, folder: Path) -> Future[None]:
        self.folders.append(folder)
        folder.mkdir()
        return self.written

    def finish(self) -> None:
        (self.folders[-1] / "weights").write_text("w")
        self.written.set_result(None)


def steps(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def saving(keep: int = 2) -> Saving:
    return Saving(Interrupt(lambda _: None), keep)


def test_a_checkpoint_takes_its_place_when_everything_is_written(tmp_path: Path) -> None:
    model = Slow()
    begun = checkpoint.begin(tmp_path, 4, model.save, {"a": 1}, keep=1)
    assert (begun.done(), steps(tmp_path)) == (False, [".tmp-step-000004"])
    assert checkpoint.newest(tmp_path) is None
    model.finish()
    assert begun.result() == tmp_path / "step-000004"
    assert steps(tmp_path) == ["step-000004"]
    assert checkpoint.damage(tmp_path / "step-000004") is None
    assert (tmp_path / "step-000004" / "model" / "weights").exists()
    assert checkpoint.read_state(tmp_path / "step-000004") == {"a": 1}


def test_a_new_one_waits_for_the_one_before(tmp_path: Path) -> None:
    first, second, kept = Slow(), Slow(), saving()
    kept.begin(tmp_path, 1, first.save, {})
    later = Thread(target=kept.begin, args=(tmp_path, 2, second.save, {}))
    later.start()
    later.join(0.2)
    assert later.is_alive()
    assert second.folders == []
    first.finish()
    later.join(10)
    assert not later.is_alive()
    assert steps(tmp_path / "checkpoints") == [".tmp-step-000002", "step-000001"]
    second.finish()
    assert kept.wait() == tmp_path / "checkpoints" / "step-000002"
    assert kept.wait() is None


def test_one_that_fails_is_told_of_and_leaves_the_one_before(tmp_path: Path) -> None:
    kept, first, second = saving(), Slow(), Slow()
    kept.begin(tmp_path, 1, first.save, {})
    first.finish()
    kept.begin(tmp_path, 2, second.save, {})
    kept.look()
    second.written.set_exception(OSError("process 1: no space"))
    with pytest.raises(StorageError, match="process 1: no space"):
        kept.look()
    kept.look()
    assert checkpoint.newest(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step-000001"
    third = Slow()
    kept.begin(tmp_path, 2, third.save, {})
    third.finish()
    assert kept.wait() == checkpoint.newest(tmp_path / "checkpoints")
    assert steps(tmp_path / "checkpoints") == ["step-000001", "step-000002"]
