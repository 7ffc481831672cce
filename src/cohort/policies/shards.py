"""Tensors that several processes wrote together, each its own part of every one, in files of safetensors.

torch.distributed.checkpoint writes and reads them. One process reads them whole, and needs no process group for it; of a
DTensor every process reads its own part, however many wrote them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cohort.policies.agents import members_of
from cohort.types.policy import Policy

# The name that torch gives to the file of a process.
FILES = "shard-*-model-*.safetensors"


def is_sharded(folder: Path) -> bool:
    """True of a folder with tensors that several processes wrote."""
    return next(folder.glob(FILES), None) is not None


def stored(model: nn.Module) -> dict[str, Tensor]:
    """What is written of a policy's module: its weights and buffers by name, tied ones once; with adapters, only those."""
    trained: dict[str, Tensor] = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if any(not value.requires_grad for value in model.parameters()):
        return trained
    kept = model.state_dict(keep_vars=True)
    return trained | {name: value for name, value in model.named_buffers() if name in kept}


def weights_of(policy: Policy) -> dict[str, Tensor]:
    """What is written of a policy; of one for each of several agents, those of all."""
    out: dict[str, Tensor] = {}
    for agent, each in members_of(policy).items():
        out |= below(f"agents.{agent}" if agent else "policy", stored(each.model))
    return out


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under names that begin with "prefix."."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def places(tree: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of each tensor in nested containers; the name says where it stands, such as "optimizer.masters.0"."""
    if isinstance(tree, Tensor):
        yield prefix.removesuffix("."), tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from places(value, f"{prefix}{key}.")
    elif isinstance(tree, (list, tuple)):
        for key, value in enumerate(tree):
            yield from places(value, f"{prefix}{key}.")


def replaced(tree: Any, change: Callable[[str, Tensor], Any], prefix: str = "") -> Any:
    """Nested containers with each tensor replaced by what `change(name, tensor)` gives; names as of `places`."""
    if isinstance(tree, Tensor):
        return change(prefix.removesuffix("."), tree)
    if isinstance(tree, Mapping):
        return {key: replaced(value, change, f"{prefix}{key}.") for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(replaced(value, change, f"{prefix}{key}.") for key, value in enumerate(tree))
    return tree


def away(name: str, tensor: Tensor) -> Tensor:
    """A tensor without values, for one whose values stand in a folder under its name."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def read(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill tensors with the values that stand under their names in the folder; of a DTensor, this process's part.

    Raises:
        ValueError: a tensor is missing there, or has another shape.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    with warnings.catch_warnings():
        # That it takes this to be one process, as it is to.
        warnings.simplefilter("ignore")
        try:
            load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
        except CheckpointException as error:
            raise ValueError(f"{folder}: {first_failure(error)}") from error


def first_failure(error: BaseException) -> str:
    """What torch.distributed.checkpoint's error comes from, with the process where there are several."""
    failures: dict[int, tuple[BaseException, Any]] = getattr(error, "failures", {})
    for rank, (failed, _) in sorted(failures.items()):
        why = (str(failed).strip() or type(failed).__name__).split("\n")[0]
        return why if len(failures) == 1 and rank == 0 else f"process {rank}: {why}"
    return (str(error).strip() or type(error).__name__).split("\n")[0]


def read_away(folder: Path, tree: Any) -> Any:
    """Nested containers with the values that stand in the folder in the place of those that are `away`, on the CPU."""
    found: dict[str, Tensor] = {}

    def made(name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_meta:
            return tensor
        found[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
        return found[name]

    tree = replaced(tree, made)
    if found:
        read(folder, found)
    return tree
