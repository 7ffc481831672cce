"""The checkpoints of a run, one written at a time, while the run goes on."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path
from typing import Any

from cohort.training import checkpoint
from cohort.training.folder import storing
from cohort.training.interrupt import Interrupt


class Saving:
    """Writes checkpoints into a run's folder.

    Args:
        interrupt: of the run; what is written is made whole first.
        keep: the number of checkpoints that stay.
    """

    def __init__(self, interrupt: Interrupt, keep: int) -> None:
        self.interrupt, self.keep = interrupt, keep
        self._folder = Path()
        self._under_way: Future[Path] | None = None

    def begin(self, folder: Path, step: int, save_model: checkpoint.SaveModel, state: dict[str, Any]) -> None:
        """Begin to write the checkpoint of a step, when the one before is whole (see `checkpoint.begin`).

        Raises:
            StorageError: the one before could not be written, or this one cannot.
        """
        self.wait()
        with self.interrupt.shield(), storing(folder):
            self._folder = folder
            self._under_way = checkpoint.begin(folder / "checkpoints", step, save_model, state, keep=self.keep)

    def look(self) -> None:
        """Take in what became of the one that was begun last, if it is over.

        Raises:
            StorageError: it could not be written.
        """
        if self._under_way is not None and self._under_way.done():
            self.wait()

    def wait(self) -> Path | None:
        """The checkpoint that was begun last, once it is whole; None if `wait` gave it before.

        Raises:
            StorageError: it could not be written.
        """
        begun = self._under_way
        if begun is None:
            return None
        try:
            with self.interrupt.shield(), storing(self._folder):
                return begun.result()
        finally:
            if begun.done():
                self._under_way = None


def tell_saved(error: BaseException, written: Path | None, folder: Path, why: str, step: int) -> None:
    """Say on the error that ends a run what is left of it.

    Args:
        written: the checkpoint of its last whole step; None if it could not be written.
        folder: that it was to be written into.
        why: it could not.
    """
    if written is not None:
        error.add_note(
            f"everything up to step {step} is saved in {written}; continue with the same command and --resume --out {folder}"
        )
        return
    try:
        left = checkpoint.newest(folder / "checkpoints")
    except OSError:
        left = None
    error.add_note(
        f"{why}; "
        + (f"the newest checkpoint is {left}, which --resume continues" if left else "there is no checkpoint")
    )
