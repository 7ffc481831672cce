"""The ranks of a run: which this process is, and what it tells the others."""

from __future__ import annotations

import datetime
import io
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from cohort.distributed.meeting import met
from cohort.errors import UsageError

# How long ranks wait for each other in one operation.
LIMIT = datetime.timedelta(minutes=30)


@dataclass
class World:
    """The processes that train together. Rank 0 is the driver, whose commands the others follow.

    Attributes:
        rank, size: of this process, counted from 0, and number of processes.
        local_rank, local_size: the same among those of this machine.
        attempt: how often the processes were started again.
        tensor: processes that share each sequence, in tensor parallel; the others share the sequences of a step.
        device: of this process's model.
        mesh: of all processes, with the dimensions "data" and "tensor", once `open` was called.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    attempt: int = 0
    tensor: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    mesh: DeviceMesh | None = None
    _data: Any = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> World:
        """What torchrun says of this process; one process without it.

        Raises:
            UsageError: it cannot be read.
        """
        if "RANK" not in environment or "WORLD_SIZE" not in environment:
            return cls()
        try:
            rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
            local = int(environment.get("LOCAL_RANK", 0)), int(environment.get("LOCAL_WORLD_SIZE", size))
            attempt = int(environment.get("TORCHELASTIC_RESTART_COUNT", 0))
        except ValueError as error:
            raise UsageError(
                f"RANK, WORLD_SIZE and LOCAL_RANK, as torchrun sets them, are no numbers: {error}"
            ) from None
        return cls(rank, size, *local, attempt)

    @property
    def driver(self) -> bool:
        """True for the process that runs the run."""
        return self.rank == 0

    @property
    def data_size(self) -> int:
        """Shares that the sequences of a step are dealt into."""
        return self.size // self.tensor

    @property
    def data_rank(self) -> int:
        """The share of this process."""
        return self.rank // self.tensor

    @property
    def speaks(self) -> bool:
        """True for one process of each share: what the others have of it is the same."""
        return self.rank % self.tensor == 0

    def open(self, device: str = "auto", tensor: int = 1) -> None:
        """Join the other processes.

        Args:
            device: as of the configuration.

        Raises:
            UsageError: there is no device for each process, or their number is none of what `tensor` asks for.
        """
        if tensor > 1 and self.size % tensor:
            raise UsageError(f"tensor_parallel is {tensor}, which {self.size} processes cannot be dealt into")
        self.tensor = tensor
        cuda = torch.cuda.is_available() and device != "cpu"
        if cuda:
            if device not in ("auto", "cuda"):
                raise UsageError(f"--device {device}: each process takes the GPU of its own number; leave --device out")
            count = torch.cuda.device_count()
            if self.local_size > count:
                raise UsageError(f"{self.local_size} processes were asked for on a machine with {count} GPUs: one each")
            torch.cuda.set_device(self.local_rank)
            self.device = torch.device("cuda", self.local_rank)
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        store, before = met(self.rank, self.size, LIMIT)
        self.attempt = max(self.attempt, before)
        dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=LIMIT)
        self._data = dist.new_group(backend="gloo", timeout=LIMIT)
        kind = "cuda" if cuda else "cpu"
        self.mesh = init_device_mesh(kind, (self.data_size, tensor), mesh_dim_names=("data", "tensor"))

    def close(self) -> None:
        """Leave the other processes."""
        if dist.is_initialized():
            dist.destroy_process_group()

    # commands ------------------------------------------------------------------------------------------------------

    def tell(self, what: Any) -> None:
        """Tell all other ranks something, which they are about to ask for; tensors reach them on the CPU. For the driver."""
        file = io.BytesIO()
        _Packing(file).dump(what)
        dist.broadcast_object_list([file.getvalue()], src=0, group=self._data)

    def told(self) -> Any:
        """What the driver tells. For the others."""
        held: list[Any] = [None]
        dist.broadcast_object_list(held, src=0, group=self._data)
        return pickle.loads(held[0])

    # together ------------------------------------------------------------------------------------------------------

    def exchange(self, what: Any) -> list[Any]:
        """What each rank has, in every rank, by rank."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, what, group=self._data)
        return found

    def collect(self, what: Any) -> list[Any] | None:
        """What each rank has, by rank, in the driver; None in the others."""
        found: list[Any] | None = [None] * self.size if self.driver else None
        dist.gather_object(what, found, dst=0, group=self._data)
        return found

    def agree(self, flag: bool) -> bool:
        """True everywhere if it is anywhere."""
        return bool(self._reduced(int(flag), dist.ReduceOp.MAX))

    def most(self, number: int) -> int:
        """The largest of all ranks' numbers."""
        return self._reduced(number, dist.ReduceOp.MAX)

    def _reduced(self, number: int, how: Any) -> int:
        value = torch.tensor([number], dtype=torch.int64)
        dist.all_reduce(value, op=how, group=self._data)
        return int(value)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of all ranks' tensors, put in its place; on whatever device it is."""
        dist.all_reduce(tensor)
        return tensor


class _Packing(pickle.Pickler):
    """Pickles tensors on the CPU, and of those that are views of larger ones no more than themselves."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is not Tensor:
            return NotImplemented
        value = value.detach().cpu()
        if value.untyped_storage().nbytes() > value.numel() * value.element_size():
            value = value.clone()
        return value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
