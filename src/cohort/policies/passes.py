"""Passes of a policy over any number of actions, in micro-batches, whatever memory there is."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from cohort.errors import UsageError, out_of_memory
from cohort.policies.diverging import diverged
from cohort.types.policy import Actions, Policy

T = TypeVar("T")


def log_probs(
    policy: Policy,
    actions: Actions,
    *,
    width: int,
    temperature: float,
    micro_tokens: int,
    want: frozenset[str] = frozenset({"logp"}),
    role: str = "policy",
) -> dict[str, Tensor]:
    """A pass without gradient over any number of actions: name -> [n, T]; see `retry_on_oom`.

    Raises:
        Diverged: the model's logits are not finite.
    """
    how: dict[str, Any] = {"width": width, "temperature": temperature, "want": want, "role": role}
    return retry_on_oom(
        policy, lambda: log_probs_of_parts(policy, actions, policy.micro_batches(actions, micro_tokens), **how)
    )


@torch.no_grad()
def log_probs_of_parts(policy: Policy, actions: Actions, parts: list[Tensor], **how: Any) -> dict[str, Tensor]:
    """`log_probs` over micro-batches that are known: rows [n] int64 of each."""
    out: dict[str, Tensor] = {}
    for rows in parts:
        found = policy.log_probs(actions.select(rows), **how)
        if "logp" in found and bool(found["logp"].isnan().any()):
            place = found["logp"].isnan().any(1).nonzero()[:1, 0].cpu()
            where = policy.first_not_finite(actions.select(rows[place]), how.get("role", "policy"))
            raise diverged(where, "scoring")
        for name, value in found.items():
            whole = out.setdefault(name, value.new_zeros(len(actions), *value.shape[1:]))
            whole[rows.to(value.device)] = value
    return out


def retry_on_oom(policy: Policy, passes: Callable[[], T]) -> T:
    """What passes over micro-batches give. Where memory runs out, it is said, and all is done again in micro-batches of
    half the size, which the policy keeps to from then on.

    Gradients are what they were before the second try: what a micro-batch that was finished, or half done, has left in
    them is not counted twice.

    Raises:
        UsageError: halves are too large as well.
    """
    params = [*policy.trainable(), *policy.roles.trained()]
    before = [None if p.grad is None else p.grad.clone() for p in params]
    try:
        return passes()
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        if policy.halved:
            raise UsageError(
                "out of memory, also in micro-batches of half the size: lower micro_tokens, max_new_tokens or the length of "
                f"the prompts ({str(error).strip().splitlines()[0]})"
            ) from error
    # Here the error is gone, and with it the graph that its traceback held.
    for p, grad in zip(params, before, strict=True):
        p.grad = grad
    policy.halved = True
    gc.collect()
    if policy.device.type == "cuda":
        torch.cuda.empty_cache()
    warnings.warn(
        "out of memory: from here on micro-batches are half as large, with the same result (a lower micro_tokens avoids this)",
        RuntimeWarning,
        stacklevel=2,
    )
    return passes()
