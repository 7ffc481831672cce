"""SAPO (swarm): the update is that of a run alone, whoever drew the rollouts."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from tests.traits import batch_for, gradients, with_leaves


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_at_ratio_1_every_token_is_pulled_by_its_advantage(seed: int) -> None:
    """-A / number of tokens, and what no sampler drew is no exception."""
    method = registry.method("sapo")
    batch = batch_for("sapo", seed=seed)
    unknown = torch.where(torch.arange(batch.size)[:, None] % 2 == 0, torch.nan, batch["sampler_logp"])
    batch = batch.replace(logp=batch.old_logp, sampler_logp=unknown)
    batch, leaves = with_leaves(method, batch)
    bound = method.bind()
    made = bound.assign(batch)
    push = gradients(bound.loss(made).total, leaves)["logp"]
    want = -made["outcome_advantage"][:, None] * batch.mask / batch.mask.sum()
    assert torch.allclose(push, want, atol=1e-12)
