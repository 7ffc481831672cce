"""Batches of vectors that give the logits of student and teacher."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cohort.policies.head import statistics_of
from cohort.types import Batch
from tests.golden.runner import make_batch, tensor


def with_logits(inputs: dict[str, Any]) -> tuple[Batch, dict[str, Tensor]]:
    """The batch with `logp` as the policy takes it from its logits, which are the leaf."""
    inputs = dict(inputs)
    logits, teacher = tensor(inputs.pop("logits")).requires_grad_(), tensor(inputs.pop("teacher_logits"))
    batch, _ = make_batch(inputs)
    logp, _ = token_statistics(logits, tensor(inputs["tokens"]))
    return batch.with_tokens(logits=logits, teacher_logits=teacher, logp=logp), {"logits": logits}


def token_statistics(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of the tokens, and entropy: [N, T] each."""
    logp, entropy = statistics_of(logits.flatten(0, 1), tokens.flatten(), 1.0, True)
    return logp.reshape(tokens.shape), entropy.reshape(tokens.shape)


def with_teacher(batch: Batch, has: Tensor) -> Batch:
    """The batch with the context of a teacher for the rollouts that have one."""
    return batch.with_rollouts(teacher_context=torch.where(has, 3, -1)[:, None])


def random_teacher(batch: Batch, generator: torch.Generator) -> Batch:
    """A random batch with what a student and a teacher give; about a third of its rollouts have no teacher."""
    # Of vocabularies narrower than a vector register torch takes three times as long, which no model has.
    shape = (*batch.mask.shape, 8)
    logits = (torch.randn(shape, generator=generator, dtype=batch.dtype) for _ in range(2))
    batch = batch.with_tokens(**dict(zip(("logits", "teacher_logits"), logits, strict=True)))
    return with_teacher(batch, torch.rand(batch.size, generator=generator) < 0.7)
