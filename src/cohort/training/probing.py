"""An update for an optimizer that asks for losses: passes without gradient, along directions that it chooses."""

from __future__ import annotations

from typing import Any

import torch

from cohort.devices import to_device
from cohort.methods import BoundMethod
from cohort.policies.passes import check_scores, log_probs_of_parts
from cohort.training.precision import MasterWeights
from cohort.training.update import (
    SCORED,
    SLOW,
    Gradient,
    Share,
    add_teacher_logits,
    of_tokens,
    slow_scores,
    with_scores,
)
from cohort.types import Batch
from cohort.types.policy import Actions, Policy


def probed(
    policy: Policy,
    method: BoundMethod,
    minibatch: Batch,
    actions: Actions,
    optimizer: MasterWeights,
    *,
    temperature: float,
    micro_tokens: int,
    on_policy: bool,
    share: Share | None = None,
    machine: int = 0,
    machines: int = 1,
) -> tuple[Gradient, bytes]:
    """Losses and fields of a minibatch as of `gradient`, and what the optimizer has found for `MasterWeights.apply`.

    What is probed is the loss to first order in what the policy gives to the tokens: the sum of its derivatives by that, of
    [n, T, ...], times that. So it has the projections of the loss's gradient, also where the value of a loss is not what it
    is the derivative of; and these derivatives take no back-propagation through the policy.

    Args:
        share: the rows whose passes are made here; None makes all. What is probed is then their part, times `machines`.
        machine, machines: which one this is of how many.
    """
    couples = method.method.couples
    want = (method.method.needs(loss=True) & SCORED) | {"logp"}
    how: dict[str, Any] = {"width": minibatch.mask.shape[1], "temperature": temperature, "want": want}
    rows = torch.arange(minibatch.size) if share is None else share.rows
    if not len(rows) and not couples:
        return Gradient(), optimizer.probe(lambda: 0.0, machine)
    parts = [rows[part] for part in policy.micro_batches(actions.select(rows), micro_tokens)]
    leaves = log_probs_of_parts(policy, actions, parts, **how)
    check_scores(policy, actions, leaves)
    leaves |= slow_scores(policy, method.method, actions, parts, **how)
    if share is not None and couples:
        own = {name: value[to_device(rows, value.device)] for name, value in leaves.items()}
        leaves, rows = share.gather(own, minibatch.size), torch.arange(minibatch.size)
    part = minibatch if couples else minibatch.replace(weight=method.weights(minibatch)).select(rows)
    part = add_teacher_logits(policy, method.method, part, actions.select(rows), temperature=temperature)
    leaves = {name: value[to_device(rows, value.device)] for name, value in leaves.items()}
    part = part.with_tokens(**{name: leaves.pop(name).cpu() for name in [*leaves] if name == SLOW})
    leaves = {name: value.requires_grad_() for name, value in leaves.items()}
    result = Gradient()
    loss = method.loss(with_scores(part.to(policy.device), leaves, on_policy))
    result.add(loss, minibatch, rows, {**leaves, **of_tokens(loss, leaves["logp"])})
    pulls = {}
    if loss.total.requires_grad:
        pulled = torch.autograd.grad(loss.total, list(leaves.values()), allow_unused=True)
        pulls = {name: pull for name, pull in zip(leaves, pulled, strict=True) if pull is not None}
    where = {int(row): at for at, row in enumerate(rows)}

    @torch.no_grad()
    def linear() -> float:
        total = 0.0
        for chosen in parts:
            scored = policy.log_probs(actions.select(chosen), **how)
            at = torch.tensor([where[int(row)] for row in chosen])
            for name, pull in pulls.items():
                total += float((pull[to_device(at, pull.device)].double() * scored[name].double()).sum())
        return machines * total

    found = optimizer.probe(linear, machine)
    return result.read(), found
