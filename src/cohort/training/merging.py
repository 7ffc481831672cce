"""A step's batch and the replays that are trained on with it as one batch; its minibatches; fields of some of its rows."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cohort.policies.agents import AgentPolicies
from cohort.rollouts.store import SAMPLED
from cohort.types import Batch, Rollout
from cohort.types.policy import Actions, Policy
from cohort.types.replay import Replay, completions, concat


def fill_missing_fields(stored: Batch, *, like: Batch) -> Batch:
    """The batch `stored` with all fields of the batch `like`; those that it does not have itself are 0."""
    tokens, others = {}, {}
    for name, value in like.items():
        known = stored[name] if name in stored else None
        if name in like.token_names and (known is None or name in SAMPLED):
            tokens[name] = value.new_zeros(*stored.mask.shape, *value.shape[2:])
        elif name not in like.token_names and (known is None or known.shape[1:] != value.shape[1:]):
            others[name] = value.new_zeros(stored.size, *value.shape[1:])
    return stored.with_tokens(**tokens).with_rollouts(**others)


def with_fields_of(batch: Batch, other: Batch) -> Batch:
    """The batch with the floating fields [N, T] and [N] that another one has alone, as 0."""
    new = [name for name in other.names if name not in batch and other.stored(name).is_floating_point()]
    tokens = {name: other.stored(name) for name in new if name in other.token_names}
    return batch.with_tokens(
        **{name: value.new_zeros(*batch.mask.shape) for name, value in tokens.items() if value.ndim == 2}
    ).with_rollouts(
        **{name: other[name].new_zeros(batch.size) for name in new if name not in tokens and other[name].ndim == 1}
    )


def replay_actions(policy: Policy, replay: Replay) -> Actions:
    """The actions of replayed rollouts."""
    given = (replay.contexts, completions(replay.batch), replay.support)
    if isinstance(policy, AgentPolicies):
        return policy.actions_after(*given, agents=replay.batch.agent.tolist())
    return policy.actions_after(*given)


def with_replays(
    policy: Policy, batch: Batch, rollouts: Sequence[Rollout], replays: Sequence[Replay]
) -> tuple[Batch, Actions]:
    """The step's batch with the rows of the replays after its own rows, and the actions of all rows."""
    actions = functools.reduce(
        operator.add, (replay_actions(policy, replay) for replay in replays), policy.actions(rollouts)
    )
    if replays:
        # A batch without rows has no fields, and only fields that all batches have are kept.
        own = [batch] if batch.size else []
        parts = [*own, *(replay.batch.to(batch.device) for replay in replays)]
        if any("auxiliary" in part for part in parts):
            compared = [part.with_rollouts(auxiliary=torch.zeros_like(part["group"])) for part in parts]
            parts = [part if "auxiliary" in part else own for part, own in zip(parts, compared, strict=True)]
            # What tells a function which rows are its own is 0 for all others.
            parts = [functools.reduce(with_fields_of, parts, part) for part in parts]
        batch = concat(parts)
    return batch, actions


def minibatches(batch: Batch, count: int, rng: torch.Generator) -> list[Tensor]:
    """Rows of `count` minibatches of whole groups, with as equal numbers of groups as possible; a single minibatch keeps the
    order of the batch."""
    if count == 1:
        return [torch.arange(batch.size, device=batch.device)]
    order = torch.randperm(batch.groups.count, generator=rng).to(batch.device)
    # Each gets its share of the groups that are compared, and of those that are not.
    apart = torch.zeros_like(batch.groups.labels)
    if "auxiliary" in batch:
        apart = apart.scatter_reduce(0, batch.groups.index, batch["auxiliary"].to(apart.dtype), "amax")
    sides = [side for kind in (0, 1) if (side := order[apart[order] == kind]).numel()]
    count = min(count, max(map(len, sides), default=1))
    cuts = [torch.cat([side.tensor_split(count)[i] for side in sides]) for i in range(count)] if sides else []
    return [torch.isin(batch.groups.index, part).nonzero()[:, 0] for part in cuts if part.numel()]


def write_fields(batch: Batch, rows: Tensor, fields: Mapping[str, Tensor]) -> Batch:
    """The batch with `fields` [n, T] at its `rows` [n]; other rows keep theirs, or are 0 where a field is new."""
    new = {}
    for name, value in fields.items():
        whole = batch[name].clone() if name in batch else value.new_zeros(batch.mask.shape)
        whole[rows] = value
        new[name] = whole
    return batch.with_tokens(**new)
