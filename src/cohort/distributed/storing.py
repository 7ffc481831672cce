"""What the ranks of a run hold in parts, written and read by torch.distributed.checkpoint.

Every rank writes its own parts into the same folder while the run goes on (see `cohort.policies.shards` for the files). Any
number of ranks reads them again, one process too, and ranks read what one process wrote.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.tensor import DTensor

from cohort.axes.optimizer import cut_like
from cohort.distributed.sharding import load, parts_of
from cohort.policies.loading import save_settings
from cohort.policies.shards import away, first_failure, is_sharded, places, read, replaced, weights_of
from cohort.training.folder import LOCK
from cohort.training.precision import MasterWeights
from cohort.types.policy import Policy

# How long ranks wait for each other's files, and for a folder to be seen on a shared file system.
PATIENCE, VISIBLE = datetime.timedelta(hours=2), 15.0
# Most bytes of a rank in one file: each is put together in memory, in which time the run stands still.
FILE_BYTES = 2**28


class Store:
    """Writes and reads a policy's weights, its models in roles and the optimizer, all in parts.

    All ranks make one together, and call its methods together but for `state_dict`.

    Args:
        policy: that the ranks hold in parts.
        replica: a whole one on each rank; it reads what one process wrote.
    """

    def __init__(self, policy: Policy, optimizer: MasterWeights, replica: Policy) -> None:
        self.policy, self.optimizer, self.replica = policy, optimizer, replica
        # What is written meanwhile speaks through a group of its own.
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE)
        self._last: Future[None] | None = None

    def _states(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "roles": self.policy.roles.state_dict()}

    def state_dict(self) -> dict[str, Any]:
        """What `save` does not write: the states of optimizer and roles, with parts of tensors `away`."""
        return dict(
            replaced(self._states(), lambda name, value: away(name, value) if isinstance(value, DTensor) else value)
        )

    def save(self, folder: Path) -> Future[None]:
        """Copy all parts, and write them into the folder while the run goes on.

        Returns:
            what is done when every rank has written its own; an OSError says of which rank what failed.
        """
        self.wait()
        if dist.get_rank() == 0:
            first = parts_of(self.policy)[0]
            save_settings(first.model, first.renderer.tokenizer, folder)
        tensors = weights_of(self.policy)
        tensors |= {name: value for name, value in places(self._states()) if isinstance(value, DTensor)}
        writer = HuggingFaceStorageWriter(
            str(folder), fqn_to_index_mapping=_files(tensors, dist.get_world_size()), save_distributed=True
        )
        written = async_save(
            {name: value.detach() for name, value in tensors.items()}, storage_writer=writer, process_group=self._group
        )
        assert isinstance(written, Future)
        done: Future[None] = Future()

        def tell(written: Future[Any]) -> None:
            error = written.exception()
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(OSError(f"{folder}: {first_failure(error)}"))

        written.add_done_callback(tell)
        self._last = done
        return done

    def wait(self) -> None:
        """Wait until what was saved last is written, or has failed."""
        if self._last is not None:
            wait([self._last])
            self._last = None

    @torch.no_grad()
    def load(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Take over what `save` wrote into a folder with any number of ranks, with what `state_dict` gave; or what one process
        wrote, whose state holds whole tensors.

        Raises:
            ValueError, KeyError: it is of another model or optimizer.
        """
        own = dict(places(self._states()))
        found: dict[str, Tensor] = {}
        if is_sharded(folder):
            found = weights_of(self.policy)
        else:
            self.replica.load_weights(folder)
            load(self.policy, self.replica)

        def part(name: str, value: Tensor) -> Tensor:
            like = own.get(name, self._followed(name))
            if isinstance(like, DTensor) and like.shape == value.shape:
                if not value.is_meta:
                    return cut_like(value, like)
                found[name] = torch.empty_like(like, dtype=value.dtype)
            elif value.is_meta:
                found[name] = torch.empty(value.shape, dtype=value.dtype)
            else:
                return value
            return found[name]

        # Earlier versions called them so.
        roles = state["roles"] if "roles" in state else state["side"]
        states = replaced({"optimizer": state["optimizer"], "roles": roles}, part)
        if found:
            read(folder, found)
        self.policy.roles.load_state_dict(states["roles"])
        self.optimizer.load_state_dict(states["optimizer"])

    def _followed(self, name: str) -> Tensor | None:
        """The parameter that a tensor of the optimizer's state belongs to."""
        _, _, after = name.partition("optimizer.inner.state.")
        place = after.split(".")[0]
        return self.optimizer.masters[int(place)] if place.isdecimal() else None


def _files(tensors: Mapping[str, Tensor], ranks: int) -> dict[str, int]:
    """Name -> number of the file, from 1, that each rank writes its part to; the policy's weights have files of their own."""
    out: dict[str, int] = {}
    number, held, before = 0, 0.0, None
    for name, value in tensors.items():
        kind, size = name.startswith("policy."), value.numel() * value.element_size() / ranks
        if kind != before or held + size > FILE_BYTES:
            number, held, before = number + 1, 0.0, kind
        out[name], held = number, held + size
    return out


def sees(folder: Path, claim: str, limit: float = VISIBLE) -> bool:
    """True if this process sees the driver's folder, by what the driver wrote into its lock."""
    end = time.monotonic() + limit
    while True:
        try:
            if (folder / LOCK).read_text(encoding="utf-8") == claim:
                return True
        except (OSError, ValueError):
            pass
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
