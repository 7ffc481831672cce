"""Rollouts that outlive their step: kept in a method's state, trained on again later."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cohort.axes.declare import State
from cohort.batch import Batch, Rollout


@dataclass(frozen=True)
class Recall:
    """Rollouts of earlier steps.

    Attributes:
        batch: with `old_logp` of the policy that drew them, and the `advantages` to train them with.
        contexts: token ids that each was conditioned on.
        before: True for an update of its own before the step's; False to train on them together with the fresh ones.
    """

    batch: Batch
    contexts: tuple[tuple[int, ...], ...]
    before: bool = False


def pack(batch: Batch, rollouts: Sequence[Rollout], fields: Iterable[str] = ()) -> State:
    """Rows of a batch as a state: what training on them again needs (tokens, mask, old_logp, advantages), and `fields`.

    Args:
        rollouts: the rollout of each row.
        fields: further fields to keep, where the batch has them.
    """
    wanted = ["group", "row", "rewards", "accuracy", "token_ids", "sampler_logp", "old_logp", "advantages", *fields]
    held = [name for name in dict.fromkeys(wanted) if name in batch]
    return {
        "mask": batch.mask.cpu(),
        "tokens": {name: batch[name].detach().cpu() for name in held if name in batch.token_names},
        "rollouts": {name: batch[name].detach().cpu() for name in held if name not in batch.token_names},
        "contexts": [torch.tensor(r.request.context, dtype=torch.int64) for r in rollouts],
        "notes": {"max_new_tokens": batch.notes.get("max_new_tokens")},
    }


def unpack(state: State, device: torch.device | str = "cpu") -> tuple[Batch, tuple[tuple[int, ...], ...]]:
    """What `pack` kept: the batch, and the context of each row."""
    batch = Batch(mask=state["mask"], tokens=state["tokens"], rollouts=state["rollouts"], notes=state["notes"])
    return batch.to(device), tuple(tuple(context.tolist()) for context in state["contexts"])


def concat(batches: Sequence[Batch]) -> Batch:
    """Batches as one, with the fields that all of them have; groups of different batches stay apart."""
    width = max(batch.mask.shape[1] for batch in batches)

    def wide(x: Tensor) -> Tensor:
        return torch.nn.functional.pad(x, [0, 0] * (x.ndim - 2) + [0, width - x.shape[1]])

    tokens = [name for name in batches[0].token_names if all(name in b.token_names for b in batches)]
    rest = [n for n in batches[0].names if n not in batches[0].token_names and all(n in b.names for b in batches)]
    shift, groups = 0, []
    for batch in batches:
        groups.append(batch.groups.index + shift)
        shift += batch.groups.count
    rollouts = {name: torch.cat([b[name] for b in batches]) for name in rest}
    return Batch(
        mask=torch.cat([wide(batch.mask) for batch in batches]),
        tokens={name: torch.cat([wide(batch[name]) for batch in batches]) for name in tokens},
        rollouts={**rollouts, "group": torch.cat(groups)},
        notes=batches[0].notes,
    )
