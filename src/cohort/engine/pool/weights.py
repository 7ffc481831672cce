"""Weights of a version on their way from the trainer to whoever draws with them.

What travels is what training changes: all parameters of a model that is trained, the adapters alone of one with adapters.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from cohort.errors import EngineError
from cohort.lifeline import Scratch
from cohort.policies.causal_lm import CausalLM

# A place in memory that processes of a machine share.
MEMORY = Path("/dev/shm")


class Weights(Protocol):
    """Weights of a version, as they are offered."""

    def fetch(self) -> Mapping[str, Tensor]:
        """name -> tensor on the CPU, of what training changes.

        Raises:
            OSError, EngineError: they cannot be had any more.
        """
        ...


class Shelf(Protocol):
    """Where weights are put for others to fetch, a version beside the other."""

    def put(self, version: int, policy: Any) -> Any:
        """The policy's weights as they are now, to be offered; None where others see to them.

        Raises:
            OSError, EngineError: there is no room for them.
        """
        ...

    def drop(self, version: int) -> None:
        """Nobody fetches a version any more."""
        ...

    def close(self) -> None: ...


def changing(policy: CausalLM) -> dict[str, Tensor]:
    """name -> tensor of what training changes, as it is; tied ones once."""
    return {name: each.detach() for name, each in policy.model.named_parameters() if each.requires_grad}


@torch.no_grad()
def take_over(policy: CausalLM, weights: Weights) -> int:
    """Have a policy's weights be these; the bytes that they are.

    Raises:
        EngineError: they cannot be had, or are those of another model.
    """
    try:
        found = weights.fetch()
    except OSError as error:
        raise EngineError(f"the weights cannot be read: {error}") from error
    own = dict(policy.model.named_parameters())
    wrong = [name for name, each in found.items() if name not in own or own[name].shape != each.shape]
    if wrong:
        raise EngineError(f"the weights are of another model than the one here: {', '.join(sorted(wrong)[:4])}")
    for name, each in found.items():
        own[name].copy_(each)
    return sum(each.numel() * each.element_size() for each in found.values())


@dataclass(frozen=True)
class InFile:
    """Weights in a file that others see under the same path."""

    path: str

    def fetch(self) -> Mapping[str, Tensor]:
        """See Weights."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(self.path))
        except SafetensorError as error:
            raise EngineError(f"the weights in {self.path} cannot be read: {error}") from error


class Files:
    """A Shelf in a folder, of safetensors.

    Args:
        parent: of the folder; None takes one in memory where that has room, which lasts as long as the run.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self.parent = parent
        self._scratch: Scratch | None = None

    def put(self, version: int, policy: CausalLM) -> InFile:
        """See Shelf."""
        from safetensors.torch import save_file

        tensors = {name: each.to("cpu").contiguous() for name, each in changing(policy).items()}
        if self._scratch is None:
            size = sum(each.numel() * each.element_size() for each in tensors.values())
            if self.parent is not None:
                self.parent.mkdir(parents=True, exist_ok=True)
            self._scratch = Scratch("cohort-weights-", self.parent or _in_memory(3 * size))
            # Others may run as another user.
            self._scratch.path.chmod(0o755)
        path, aside = self._at(self._scratch, version), self._scratch.path / "next"
        save_file(tensors, aside)
        os.replace(aside, path)
        return InFile(str(path))

    @staticmethod
    def _at(scratch: Scratch, version: int) -> Path:
        return scratch.path / f"version-{version}.safetensors"

    def drop(self, version: int) -> None:
        """See Shelf."""
        if self._scratch is not None:
            self._at(self._scratch, version).unlink(missing_ok=True)

    def close(self) -> None:
        """See Shelf."""
        if self._scratch is not None:
            self._scratch.close()


def _in_memory(needed: int) -> Path | None:
    """The place in memory, if it has so many bytes left."""
    if not MEMORY.is_dir():
        return None
    return MEMORY if shutil.disk_usage(MEMORY).free > needed else None


class Elsewhere:
    """A Shelf of members whose weights others bring up to date before a version begins."""

    def put(self, version: int, policy: CausalLM) -> None:
        """See Shelf."""

    def drop(self, version: int) -> None:
        """See Shelf."""

    def close(self) -> None:
        """See Shelf."""
