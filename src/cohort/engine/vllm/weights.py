"""Ways by which the trainer's weights reach vLLM: through a folder, or from memory to memory."""

from __future__ import annotations

import contextlib
import shutil
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from cohort.engine.vllm.engine import Backend, Served
from cohort.engine.vllm.local import Local, import_vllm
from cohort.engine.vllm.server import Server
from cohort.errors import EngineError, UsageError
from cohort.lifeline import Scratch


@dataclass(frozen=True)
class Checkpoint:
    """Weights of a version in a folder that vLLM sees.

    Attributes:
        name: that no other has, as vLLM's caches go by it.
        folder: of safetensors; of a LoRA run, with the adapter alone.
        adapter: it is one.
    """

    name: str
    folder: str
    adapter: bool

    @property
    def size(self) -> int:
        """Bytes of the weights."""
        return sum(path.stat().st_size for path in Path(self.folder).glob("*.safetensors"))


class Checkpoints:
    """Folders with weights, a version each, since vLLM's caches go by path and name.

    Args:
        parent: of the folders; None takes one in memory where there is such, which lasts as long as the run.
    """

    def __init__(self, parent: Path | None = None) -> None:
        memory = Path("/dev/shm")
        place = parent if parent is not None else memory if memory.is_dir() else None
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        self._scratch = Scratch("cohort-weights-", place)
        # A server may run as another user.
        self._scratch.path.chmod(0o755)
        self._run = uuid.uuid4().hex[:8]

    def _at(self, version: int) -> Path:
        return self._scratch.path / f"version-{version}"

    def put(self, version: int, policy: Served) -> Checkpoint:
        """The weights as they are now.

        Raises:
            OSError: there is no room for them.
        """
        folder = self._at(version)
        policy.model.save_pretrained(folder, state_dict=_with_both_ends(policy))
        return Checkpoint(f"cohort-{self._run}-{version}", str(folder), policy.is_adapter)

    def drop(self, version: int) -> None:
        """Nobody reads a version any more."""
        shutil.rmtree(self._at(version), ignore_errors=True)

    def close(self) -> None:
        """Take all away."""
        self._scratch.close()


class Folder:
    """A Route: weights, or the adapter of a LoRA run, as safetensors in a folder that both sides see.

    Args:
        parent: of the folders, as for `Checkpoints`.

    Attributes:
        given: weights that are to be taken over in place of the policy's as they are; None for those.
    """

    def __init__(self, policy: Served, backend: Backend, parent: Path | None = None) -> None:
        self.policy, self.backend, self._parent = policy, backend, parent
        self.given: Checkpoint | None = None
        self._held: Checkpoint | None = None
        self._checkpoints: Checkpoints | None = None
        self._version = 0

    def send(self) -> None:
        """See Route.send."""
        before, own = self._held, self.given is None
        version = self._version + own
        try:
            new = self.given or self._own().put(version, self.policy)
        except OSError as error:
            raise EngineError(f"the weights for vLLM cannot be written: {error}") from error
        self._take(new, None if before is None else before.name)
        self._held = new
        if own:
            self._own().drop(self._version)
            self._version = version

    def again(self) -> None:
        """See Route.again."""
        if self._held is not None:
            self._take(self._held, None)

    def close(self) -> None:
        """See Route.close."""
        if self._checkpoints is not None:
            self._checkpoints.close()

    def _own(self) -> Checkpoints:
        self._checkpoints = self._checkpoints or Checkpoints(self._parent)
        return self._checkpoints

    def _take(self, new: Checkpoint, replaces: str | None) -> None:
        if new.adapter:
            self.backend.adopt(new.name, new.folder, replaces if replaces != new.name else None)
        else:
            self.backend.load(new.folder)


def _with_both_ends(policy: Served) -> dict[str, torch.Tensor] | None:
    """Weights under all their names, where vLLM runs on a CPU; None for those that are written anyhow.

    There it keeps a copy of the output layer in a form of its own, which new weights of a tied one reach only under the
    layer's own name.
    """
    once = dict(policy.model.named_parameters())
    every = dict(policy.model.named_parameters(remove_duplicate=False))
    if policy.is_adapter or policy.device.type != "cpu" or len(every) == len(once):
        return None
    again = {name: every[name].detach().clone() for name in every.keys() - once.keys()}
    return {**policy.model.state_dict(), **again}


class Memory:
    """A Route: vLLM's own weight transfer, by CUDA IPC to a vLLM in this process and by NCCL to a server on other GPUs.

    vLLM's trainer side does the handshake and every transfer (`WeightTransferTrainerFactory`; page
    training/weight_transfer).
    """

    def __init__(self, policy: Served, backend: Local | Server) -> None:
        self.backend, self._device = backend, policy.device
        transfer = import_vllm("vllm.distributed.weight_transfer")
        info: Any
        client: Any
        if isinstance(backend, Local):
            client = backend
            info = import_vllm("vllm.distributed.weight_transfer.ipc_engine").IPCTrainerInitInfo(rank=0)
        else:
            client = transfer.HTTPVLLMWeightSyncClient(backend.url)
            info = import_vllm("vllm.distributed.weight_transfer.nccl_engine").NCCLTrainerInitInfo(
                master_address=_own_address(backend.url),
                master_port=_free_port(),
                world_size=1 + backend.workers(),
                rank=0,
            )
        try:
            with self._on_device():
                self._engine = transfer.WeightTransferTrainerFactory.trainer_init(
                    init_info=info, client=client, source=transfer.ModuleSource(policy.model)
                )
        except Exception as error:  # of vLLM, NCCL, CUDA or HTTP
            raise UsageError(
                f"{backend.place} cannot be sent weights from memory: {error}; engine_weights=folder sends them as files"
            ) from error

    def _on_device(self) -> Any:
        cuda = self._device.type == "cuda"
        return torch.cuda.device(self._device) if cuda else contextlib.nullcontext()

    def send(self) -> None:
        """See Route.send."""
        try:
            with self._on_device():
                self._engine.send_weights()
        except Exception as error:  # of vLLM, NCCL, CUDA or HTTP
            raise EngineError(f"{self.backend.place} could not be sent the weights: {error}") from error
        self.backend.forget()

    def again(self) -> None:
        """See Route.again."""
        raise EngineError(
            f"the connection to {self.backend.place} was lost, and with it the way by which weights reach it: start it anew"
        )

    def close(self) -> None:
        """See Route.close."""
        shutdown = getattr(self._engine, "shutdown", None)
        if shutdown is not None:
            shutdown()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _own_address(url: str) -> str:
    """The address under which the host of a URL sees this machine."""
    parts = urlsplit(url)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((parts.hostname or "127.0.0.1", parts.port or 80))  # of a datagram socket: nothing is sent
        return str(probe.getsockname()[0])
