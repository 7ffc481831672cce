"""The gradient of a minibatch, whatever its size: forward, loss, backward."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from cohort.devices import to_device, to_host
from cohort.methods import BoundMethod, Loss, Method
from cohort.policies.passes import check_scores, log_probs_of_parts
from cohort.types import Batch
from cohort.types.policy import Actions, Policy

# Fields that a scoring pass of the current policy gives, with gradient.
SCORED = frozenset({"logp", "entropy", "logits", "hidden", "values"})
# Fields that take a pass of the teacher over a micro-batch, since they are too large to be kept for a whole step.
TEACHER = frozenset({"teacher_logits"})
LOGP, LOGITS = frozenset({"logp"}), frozenset({"logits"})
# The log-probability under the policy's slow copy, as that is at each update.
SLOW = "ema_logp"
# Beside regularizers' losses, under names that none of them has.
TOTAL, POLICY = "/total", "/policy"


@dataclass
class Gradient:
    """Losses and fields of a minibatch's forward and backward passes; the gradients themselves are in the parameters.

    Attributes:
        version: of the weights that the passes were made with.
        loss: total loss; policy: its part from the surrogate or objective; regularizers: name -> part.
        fields: [n, T] by name, detached: `logp` (and `entropy`, where it was needed); `policy_gradient`, the derivative
            of the policy part with respect to `logp`; and where the loss is a surrogate, its `ratio` and `loss_weight`.
    """

    version: int = 0
    loss: float = 0.0
    policy: float = 0.0
    regularizers: dict[str, float] = field(default_factory=dict)
    fields: dict[str, Tensor] = field(default_factory=dict)
    _losses: list[dict[str, Tensor]] = field(default_factory=list)

    def add(self, loss: Loss, minibatch: Batch, rows: Tensor, fields: Mapping[str, Tensor]) -> None:
        """Count in the loss of some rows of the minibatch, and keep fields [n, T, ...] of them; `read` comes after the last."""
        self._losses.append({name: value.detach() for name, value in loss.regularizers.items()})
        self._losses[-1] |= {TOTAL: loss.total.detach(), POLICY: loss.policy.detach()}
        for name, value in fields.items():
            if value.ndim > 2:
                continue  # logits and hidden states are too large to be kept
            whole = self.fields.setdefault(name, value.new_zeros(minibatch.mask.shape).detach())
            whole[to_device(rows, value.device)] = value.detach()

    def read(self) -> Gradient:
        """The same with all that was added in the processor's memory."""
        names = [(part, name) for part, losses in enumerate(self._losses) for name in losses]
        values = to_host(*self.fields.values(), *(self._losses[part][name] for part, name in names))
        self.fields = dict(zip(self.fields, values, strict=False))
        for (_, name), value in zip(names, values[len(self.fields) :], strict=True):
            if name == TOTAL:
                self.loss += float(value)
            elif name == POLICY:
                self.policy += float(value)
            else:
                self.regularizers[name] = self.regularizers.get(name, 0.0) + float(value)
        self._losses = []
        return self


class Share(Protocol):
    """The rows of a minibatch whose passes are made here, where the others are made elsewhere at the same time.

    Attributes:
        rows: [m] int64, on the CPU.
        lockstep: a pass waits for one of every other share, forward and backward.
    """

    rows: Tensor
    lockstep: bool

    def gather(self, own: dict[str, Tensor], count: int) -> dict[str, Tensor]:
        """Fields [m, T, ...] of these rows -> of all `count` rows, with what the others have of theirs."""
        ...

    def missing(self, passes: int) -> int:
        """Passes to make in addition, since all must make the same number of them."""
        ...


def gradient(
    policy: Policy,
    method: BoundMethod,
    minibatch: Batch,
    actions: Actions,
    *,
    temperature: float,
    micro_tokens: int,
    on_policy: bool,
    share: Share | None = None,
) -> Gradient:
    """Add the gradient of a minibatch's loss to the policy's parameters.

    Where the minibatch does not fit into one forward pass, it is cut into micro-batches. The loss of most methods is a
    sum over rollouts with weights that the whole minibatch fixes, so its parts add up. Where rollouts are coupled, the
    log-probabilities of all are computed first, the loss is taken on them, and its derivative is sent back through
    every part in a second pass.

    Args:
        minibatch: in the processor's memory; its parts are brought to the policy's device.
        on_policy: the policy has not moved since the step began; `old_logp` is then `logp` itself, and needs
            no pass of its own.
        share: the rows whose passes are made here; None makes all. What it gives is then of these rows, the sum over all
            shares being that of the minibatch; where rollouts are coupled it is of the whole minibatch in every share.
    """
    couples, lockstep = method.method.couples, share is not None and share.lockstep
    want = (method.method.needs(loss=True) & SCORED) | {"logp"}
    how: dict[str, Any] = {"width": minibatch.mask.shape[1], "temperature": temperature, "want": want}
    if share is None:
        parts, empty = policy.micro_batches(actions, micro_tokens), 0
    else:
        parts = [share.rows[rows] for rows in policy.micro_batches(actions.select(share.rows), micro_tokens)]
        empty = share.missing(len(parts))
    if couples and (share is not None or len(parts) > 1):
        return _coupled(policy, method, minibatch, actions, parts, how, on_policy, share, empty)
    result = Gradient()
    # Where rollouts are coupled, tokens may be rejected before they are counted: the loss takes its own weights.
    weight = None if couples else method.weights(minibatch)
    for number, rows in enumerate([*parts, *[_some_row(minibatch)] * empty]):
        scored = policy.log_probs(actions.select(rows), **how)
        part = minibatch.select(rows)
        part = part if weight is None else part.replace(weight=weight[rows])
        own = actions.select(rows)
        part = add_teacher_logits(policy, method.method, part, own, temperature=temperature, lockstep=lockstep)
        part = part.with_tokens(**slow_scores(policy, method.method, own, [torch.arange(len(rows))], **how))
        if number >= len(parts):
            _nothing(scored).backward()
            continue
        loss = method.loss(with_scores(part.to(policy.device), scored, on_policy))
        fields = {**scored, **of_tokens(loss, scored["logp"])}
        if loss.total.requires_grad:
            loss.total.backward()
        elif lockstep:
            _nothing(scored).backward()
        result.add(loss, minibatch, rows, fields)
    return result.read()


def _coupled(
    policy: Policy,
    method: BoundMethod,
    minibatch: Batch,
    actions: Actions,
    parts: list[Tensor],
    how: dict[str, Any],
    on_policy: bool,
    share: Share | None,
    empty: int,
) -> Gradient:
    """`gradient` where rollouts are coupled, and one pass does not hold them all.

    Args:
        empty: passes to make of which nothing is taken.
    """
    # A single part is kept for the backward pass, unless others have several and wait for the pass that makes it again.
    lockstep = share is not None and share.lockstep
    kept = policy.log_probs(actions.select(parts[0]), **how) if len(parts) == 1 and not lockstep else None
    if kept is not None:
        leaves = {name: _placed(value.detach(), parts[0], minibatch.size) for name, value in kept.items()}
    else:
        leaves = log_probs_of_parts(policy, actions, [*parts, *[_some_row(minibatch)] * empty], **how)
        check_scores(policy, actions, leaves)
    leaves |= slow_scores(policy, method.method, actions, [*parts, *[_some_row(minibatch)] * empty], **how)
    if share is not None:
        own = {name: value[to_device(share.rows, value.device)] for name, value in leaves.items()} if parts else {}
        leaves = share.gather(own, minibatch.size)
    minibatch = minibatch.with_tokens(**{name: leaves.pop(name).cpu() for name in [*leaves] if name == SLOW})
    leaves = {name: value.requires_grad_() for name, value in leaves.items()}
    heat = how["temperature"]
    minibatch = add_teacher_logits(policy, method.method, minibatch, actions, temperature=heat, lockstep=lockstep)
    loss = method.loss(with_scores(minibatch.to(policy.device), leaves, on_policy))
    result = Gradient()
    result.add(loss, minibatch, torch.arange(minibatch.size), {**leaves, **of_tokens(loss, leaves["logp"])})
    if not loss.total.requires_grad:
        return result.read()
    pulled = torch.autograd.grad(loss.total, list(leaves.values()), allow_unused=True)
    # What the loss does not depend on gets no gradient, rather than one of zeros that momentum would act on.
    pulls = {name: pull for name, pull in zip(leaves, pulled, strict=True) if pull is not None}
    for rows in parts:
        scored = policy.log_probs(actions.select(rows), **how) if kept is None else kept
        torch.autograd.backward(
            [scored[name] for name in pulls], [pull[to_device(rows, pull.device)] for pull in pulls.values()]
        )
    for _ in range(empty):
        _nothing(policy.log_probs(actions.select(_some_row(minibatch)), **how)).backward()
    return result.read()


def _placed(value: Tensor, rows: Tensor, count: int) -> Tensor:
    """Values [m, ...] at their rows [m] of [count, ...]."""
    return value.new_zeros(count, *value.shape[1:]).index_put((to_device(rows, value.device),), value)


def _some_row(minibatch: Batch) -> Tensor:
    """A row [1] int64 that has tokens, on the CPU."""
    return minibatch.mask.any(1).nonzero()[:1, 0]


def _nothing(scored: Mapping[str, Tensor]) -> Tensor:
    """0, on the graph of what a pass gave."""
    return 0.0 * torch.stack([value.sum() for value in scored.values()]).sum()


def with_scores(part: Batch, scored: Mapping[str, Tensor], on_policy: bool) -> Batch:
    """The rows with what a pass of the policy gives to them."""
    part = part.with_tokens(**scored)
    return part.replace(old_logp=scored["logp"].detach()) if on_policy else part


def of_tokens(loss: Loss, logp: Tensor) -> dict[str, Tensor]:
    """What the loss made of the tokens [n, T], by the names of the batch's fields; `policy_gradient` is the derivative of
    its policy part with respect to logp."""
    push = torch.zeros_like(logp)
    if loss.policy.requires_grad:
        (push,) = torch.autograd.grad(loss.policy, logp, retain_graph=True, allow_unused=True, materialize_grads=True)
    # Not as `weight`, which would stand in for the aggregation at the next update.
    found = {"policy_gradient": push, "ratio": loss.ratio, "loss_weight": loss.weight, "correction": loss.correction}
    return {name: value.expand_as(push) for name, value in found.items() if value is not None}


def slow_scores(
    policy: Policy, method: Method, actions: Actions, parts: list[Tensor], *, width: int, temperature: float, **_: Any
) -> dict[str, Tensor]:
    """`ema_logp` [n, width] of n rollouts' actions, if the method reads it in its loss: without gradient, by the policy's slow
    copy as it is now.

    Args:
        parts: rows of the passes to make, those of the policy itself; other rows are 0.
    """
    if SLOW not in method.needs(loss=True):
        return {}
    found = log_probs_of_parts(policy, actions, parts, width=width, temperature=temperature, want=LOGP, role="ema")
    return {SLOW: found["logp"]} if found else {}


def add_teacher_logits(
    policy: Policy, method: Method, part: Batch, actions: Actions, *, temperature: float, lockstep: bool = False
) -> Batch:
    """The rows with `teacher_logits` [n, T, V], if the method reads them, without gradient.

    They are the policy's slow copy's in the context of the field `teacher_context` [n, C] (token ids, then -1; a row of -1
    has no teacher and gets zeros), or without such a field another model's, in the rollout's own context.

    Args:
        lockstep: a pass is made in any case, since others wait for it.
    """
    if not method.needs(loss=True) & TEACHER:
        return part
    if "teacher_context" not in part:
        how: dict[str, Any] = {"width": part.mask.shape[1], "temperature": temperature, "role": "teacher"}
        with torch.no_grad():
            return part.with_tokens(teacher_logits=policy.log_probs(actions, want=LOGITS, **how)["logits"])
    contexts = part["teacher_context"]
    rows = (contexts[:, 0] >= 0).nonzero()[:, 0]
    own = actions.select(rows).in_contexts([contexts[i][contexts[i] >= 0] for i in rows.tolist()])
    width = part.mask.shape[1]
    dtype = torch.float64 if policy.dtype == torch.float64 else torch.float32
    logits = torch.zeros(part.size, width, policy.vocabulary, dtype=dtype, device=policy.device)
    if rows.numel() or lockstep:
        with torch.no_grad():
            given = policy.log_probs(own, width=width, temperature=temperature, want=LOGITS, role="ema")["logits"]
        logits[to_device(rows, logits.device)] = given
    return part.with_tokens(teacher_logits=logits)
