"""Passes of a policy over any number of actions, in micro-batches, whatever memory there is."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from cohort.errors import UsageError, out_of_memory
from cohort.policies.causal_lm import CausalLM
from cohort.policies.diverging import diverged
from cohort.policies.sequences import Sequences

T = TypeVar("T")


def log_probs(
    policy: CausalLM,
    sequences: Sequences,
    *,
    width: int,
    temperature: float,
    micro_tokens: int,
    want: frozenset[str] = frozenset({"logp"}),
    role: str = "policy",
) -> dict[str, Tensor]:
    """A pass without gradient over any number of sequences: name -> [n, T]; see `retry_on_oom`.

    Raises:
        Diverged: the model's logits are not finite.
    """
    how: dict[str, Any] = {"width": width, "temperature": temperature, "want": want, "role": role}
    return retry_on_oom(
        policy, lambda: log_probs_of_parts(policy, sequences, policy.micro_batches(sequences, micro_tokens), **how)
    )


@torch.no_grad()
def log_probs_of_parts(policy: CausalLM, sequences: Sequences, parts: list[Tensor], **how: Any) -> dict[str, Tensor]:
    out: dict[str, Tensor] = {}
    for rows in parts:
        found = policy.log_probs(sequences.select(rows), **how)
        if "logp" in found and bool(found["logp"].isnan().any()):
            place = int(rows[int(found["logp"].isnan().any(1).nonzero()[0])])
            tokens = torch.cat([sequences.context[place], sequences.completion[place]]).tolist()
            with policy.model_of(how.get("role", "policy")) as scored:
                raise diverged(scored, tokens, "scoring")
        for name, value in found.items():
            whole = out.setdefault(name, value.new_zeros(len(sequences), *value.shape[1:]))
            whole[rows.to(value.device)] = value
    return out


def retry_on_oom(policy: CausalLM, passes: Callable[[], T]) -> T:
    """What passes over micro-batches give. Where memory runs out, it is said, and all is done again in micro-batches of
    half the size, which the policy keeps to from then on.

    Gradients are what they were before the second try: what a micro-batch that was finished, or half done, has left in
    them is not counted twice.

    Raises:
        UsageError: halves are too large as well.
    """
    params = [*policy.trainable(), *(policy.critic.parameters() if policy.critic is not None else ())]
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
