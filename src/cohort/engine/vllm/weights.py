"""Ways by which the trainer's weights reach vLLM: through a folder, or from memory to memory."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from cohort.engine.vllm.engine import Backend, Served
from cohort.engine.vllm.local import Local, import_vllm
from cohort.engine.vllm.server import Server
from cohort.errors import EngineError, UsageError


class Folder:
    """A Route: weights, or the adapter of a LoRA run, as safetensors in a folder that both sides see.

    Every version has a folder of its own, since vLLM's caches go by path and name.

    Args:
        parent: of the folders; None takes one in memory where there is such, which lasts as long as the run.
    """

    def __init__(self, policy: Served, backend: Backend, parent: Path | None = None) -> None:
        self.policy, self.backend = policy, backend
        memory = Path("/dev/shm")
        place = parent if parent is not None else memory if memory.is_dir() else None
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="cohort-weights-", dir=place))
        # A server may run as another user.
        self._folder.chmod(0o755)
        self._run, self._version = uuid.uuid4().hex[:8], 0

    def _at(self, version: int) -> tuple[str, Path]:
        return f"cohort-{self._run}-{version}", self._folder / f"version-{version}"

    def send(self) -> None:
        """See Route.send."""
        (old, old_folder), (new, folder) = self._at(self._version), self._at(self._version + 1)
        try:
            self.policy.model.save_pretrained(folder, state_dict=_with_both_ends(self.policy))
        except OSError as error:
            raise EngineError(f"the weights for vLLM cannot be written to {folder}: {error}") from error
        if self.policy.is_adapter:
            self.backend.adopt(new, str(folder), old if self._version else None)
        else:
            self.backend.load(str(folder))
        self._version += 1
        shutil.rmtree(old_folder, ignore_errors=True)

    def again(self) -> None:
        """See Route.again."""
        name, folder = self._at(self._version)
        if self.policy.is_adapter:
            self.backend.adopt(name, str(folder), None)
        else:
            self.backend.load(str(folder))

    def close(self) -> None:
        """See Route.close."""
        shutil.rmtree(self._folder, ignore_errors=True)


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
