"""Passes of a policy over any number of actions, in micro-batches, whatever memory there is."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor

from cohort.devices import to_device, to_host
from cohort.errors import UsageError, out_of_memory
from cohort.policies.diverging import diverged
from cohort.types.policy import Actions, Layered, Policy

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
    """A pass without gradient over any number of actions; see `retry_on_oom`.

    Returns:
        name -> [n, T] in the processor's memory, or [n, T, ...] (logits, hidden states) where the policy is.

    Raises:
        Diverged: the model's logits are not finite.
    """
    how: dict[str, Any] = {"width": width, "temperature": temperature, "want": want, "role": role}
    found = retry_on_oom(
        policy, lambda: log_probs_of_parts(policy, actions, policy.micro_batches(actions, micro_tokens), **how)
    )
    narrow = [name for name, value in found.items() if value.ndim == 2]
    found |= zip(narrow, to_host(*(found[name] for name in narrow)), strict=True)
    check_scores(policy, actions, found, role)
    return found


def layers_of(policy: Policy) -> Layered:
    """The policy as one whose layers can be looked into.

    Raises:
        UsageError: it has none.
    """
    if not isinstance(policy, Layered):
        raise UsageError("the method looks into the layers of the model, and the policy has none")
    return policy


@torch.no_grad()
def log_probs_of_parts(policy: Policy, actions: Actions, parts: list[Tensor], **how: Any) -> dict[str, Tensor]:
    """`log_probs` over micro-batches that are known: rows [n] int64 of each."""
    out: dict[str, Tensor] = {}
    for rows in parts:
        for name, value in policy.log_probs(actions.select(rows), **how).items():
            whole = out.setdefault(name, value.new_zeros(len(actions), *value.shape[1:]))
            whole[to_device(rows, value.device)] = value
    return out


def check_scores(policy: Policy, actions: Actions, scores: Mapping[str, Tensor], role: str = "policy") -> None:
    """Raises Diverged where log-probabilities [n, T] of actions are NaN."""
    if "logp" not in scores or not bool((wrong := scores["logp"].isnan()).any()):
        return
    first = wrong.any(1).nonzero()[:1, 0].cpu()
    raise diverged(policy.first_not_finite(actions.select(first), role), "scoring")


def retry_on_oom(policy: Policy, passes: Callable[[], T]) -> T:
    """What passes over micro-batches give, tried again as `attempts` says."""
    for attempt in attempts(policy):
        with attempt:
            return passes()
    raise AssertionError("the last attempt raises")


def attempts(policy: Policy) -> Iterator[AbstractContextManager[None]]:
    """Attempts at passes over micro-batches, one or two: `for attempt in attempts(policy): with attempt: ...`.

    Where memory runs out in the first, that is said, and all is done again in micro-batches of half the size, which the
    policy keeps to from then on. Gradients are then what they were before: what a micro-batch that was finished, or half
    done, has left in them is not counted twice.

    Raises:
        UsageError: halves are too large as well.
    """
    first = Attempt(policy)
    yield first
    if first.failed:
        # Here the error is gone, and with it the graph that its traceback held.
        first.restore()
        policy.halved = True
        gc.collect()
        if policy.device.type == "cuda":
            torch.cuda.empty_cache()
        warnings.warn(
            "out of memory: from here on micro-batches are half as large, with the same result (a lower micro_tokens "
            "avoids this)",
            RuntimeWarning,
            stacklevel=3,
        )
        yield Attempt(policy)


class Attempt(AbstractContextManager[None]):
    """Passes that may run out of memory, once.

    Attributes:
        failed: they did, and smaller ones can be tried.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy, self.failed = policy, False
        self._params = [*policy.trainable(), *policy.roles.trained()]
        self._before = [None if p.grad is None else p.grad.clone() for p in self._params]

    def restore(self) -> None:
        """Bring gradients back to what they were."""
        for p, grad in zip(self._params, self._before, strict=True):
            p.grad = grad

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, (RuntimeError, MemoryError)) or not out_of_memory(error):
            return False
        if self.policy.halved:
            raise UsageError(
                "out of memory, also in micro-batches of half the size: lower micro_tokens, max_new_tokens or the length of "
                f"the prompts ({str(error).strip().splitlines()[0]})"
            ) from error
        self.failed = True
        return True
