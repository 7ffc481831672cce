"""Rollouts that outlive their step: kept in a method's state, trained on again later."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cohort.types import Batch, Context, Rollout
from cohort.types.declare import State
from cohort.types.support import Support


@dataclass(frozen=True)
class Replay:
    """Rollouts of earlier steps.

    Attributes:
        batch: with `old_logp` of the policy that drew them, and the `advantages` to train them with.
        contexts: what each was conditioned on.
        before: True for an update of its own before the step's; False to train on them together with the fresh ones.
        support: what the tokens of each were drawn over, as in `Rollout.support`; () if nothing was left out.
    """

    batch: Batch
    contexts: tuple[Context, ...]
    before: bool = False
    support: tuple[Support | None, ...] = ()


def pack(batch: Batch, rollouts: Sequence[Rollout], fields: Iterable[str] = ()) -> State:
    """Rows of a batch as a state: what training on them again needs (tokens, mask, old_logp, advantages), and `fields`.

    Args:
        rollouts: the rollout of each row.
        fields: further fields to keep, where the batch has them.
    """
    wanted = [
        "group",
        "agent",
        "row",
        "rewards",
        "accuracy",
        "preference",
        "token_ids",
        "sampler_logp",
        "version",
        "old_logp",
        "advantages",
        *fields,
    ]
    held = [name for name in dict.fromkeys(wanted) if name in batch]
    return {
        "mask": batch.mask.cpu(),
        # As stored, since a model reads tokens also where the policy did not choose them.
        "tokens": {name: batch.stored(name).detach().cpu() for name in held if name in batch.token_names},
        "rollouts": {name: batch[name].detach().cpu() for name in held if name not in batch.token_names},
        "contexts": [r.context.state() for r in rollouts],
        "support": [None if r.support is None else r.support.state() for r in rollouts],
    }


def unpack(state: State, device: torch.device | str = "cpu") -> Replay:
    """The replay that `pack` made a state of."""
    batch = Batch(mask=state["mask"], tokens=state["tokens"], rollouts=state["rollouts"])
    contexts = tuple(map(Context.of_state, state["contexts"]))
    support = tuple(None if each is None else Support.of_state(each) for each in state["support"])
    return Replay(batch.to(device), contexts, support=support)


def joined(states: Sequence[State]) -> Replay:
    """What several calls of `pack` gave, as one replay; their groups stay apart."""
    return merged([unpack(state) for state in states])


def merged(parts: Sequence[Replay]) -> Replay:
    """Several replays as one, with the fields that all of them have; their groups stay apart."""
    return Replay(
        concat([part.batch for part in parts]),
        tuple(context for part in parts for context in part.contexts),
        support=tuple(each for part in parts for each in part.support),
    )


def beside(replay: Replay, **tokens: Tensor) -> Replay:
    """The replay as rows that belong to no group that is compared: only functions that declare `auxiliary` read them.

    Args:
        tokens: fields [N, T] that tell them what to do.
    """
    batch = replay.batch
    still = torch.zeros(batch.mask.shape, dtype=batch.dtype)
    batch = batch.replace(advantages=still, old_logp=batch.stored("old_logp") if "old_logp" in batch else still)
    batch = batch.with_tokens(**tokens).with_rollouts(auxiliary=torch.ones_like(batch["group"]))
    return replace(replay, batch=batch)


def select(state: State, rows: Tensor) -> State:
    """Some rows [n] int64 of what `pack` gave."""
    return {
        "mask": state["mask"][rows],
        "tokens": {name: value[rows] for name, value in state["tokens"].items()},
        "rollouts": {name: value[rows] for name, value in state["rollouts"].items()},
        "contexts": [state["contexts"][row] for row in rows.tolist()],
        "support": [state["support"][row] for row in rows.tolist()],
    }


# Fields that the loss writes anew in every pass, or that nothing but the record reads.
FRESH = frozenset({"logp", "entropy", "values", "policy_gradient", "ratio", "loss_weight", "base_advantages"})


def pack_step(batch: Batch, rollouts: Sequence[Rollout]) -> State:
    """`pack` for an `on_step_end` hook: all that the step's batch holds, but what the next pass over it writes anew."""
    # A step of a single update has no old_logp of its own: what it scored is that of the policy that drew the rollouts.
    batch = batch if "old_logp" in batch else batch.replace(old_logp=batch.logp)
    return pack(batch, rollouts, sorted(set(batch.names) - FRESH))


def completions(batch: Batch) -> list[list[int]]:
    """The tokens of each rollout up to the last with mask 1, for a pass of a model over what was kept."""
    place = torch.arange(1, batch.mask.shape[1] + 1, device=batch.device)
    lengths = (batch.mask * place).amax(1).tolist()
    return [row[:length] for row, length in zip(batch.stored("token_ids").tolist(), lengths, strict=True)]


def concat(batches: Sequence[Batch]) -> Batch:
    """Batches as one, with the fields that all of them have; groups and episodes of different batches stay apart."""
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
    if "episode" in rollouts:
        first = 0
        for batch, part in zip(batches, rollouts["episode"].split([b.size for b in batches]), strict=True):
            part += first
            first += int(batch.episode.max()) + 1 if batch.size else 0
    return Batch(
        mask=torch.cat([wide(batch.mask) for batch in batches]),
        tokens={name: torch.cat([wide(batch.stored(name)) for batch in batches]) for name in tokens},
        rollouts={**rollouts, "group": torch.cat(groups)},
    )
