"""LLDS: a penalty on likelihood that falls."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.recipes.llds import action_sums, displacement, penalised
from cohort.types import Batch, Prompt, Request
from cohort.types.access import ModelAccess
from tests.helpers import random_batch, rollout_of

SEEDS = st.integers(0, 10_000)
GATES = ("token", "action", "response")


def ready(seed: int, **kwargs: object) -> Batch:
    """A random batch with advantages and a span of answer tokens."""
    batch = random_batch(seed, drift=0.5, width=8, **kwargs)  # type: ignore[arg-type]
    answer = torch.arange(8) >= torch.randint(2, 8, (batch.size, 1), generator=torch.Generator().manual_seed(seed))
    return registry.method("llds").bind().assign(batch).with_tokens(answer_mask=answer)


def gradient(method: str, batch: Batch) -> Tensor:
    logp = batch._tokens["logp"].clone().requires_grad_()
    loss = registry.method(method).bind().loss(batch.with_tokens(logp=logp)).total
    return torch.autograd.grad(loss, logp)[0]


def penalty(batch: Batch, gate: str = "action", weight: float = 1.0, denominator: str = "preserving") -> float:
    return float(displacement(batch, gate=gate, answer_weight=weight, denominator=denominator))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(GATES), st.sampled_from([1.0, 0.3, 0.0]), st.sampled_from(["preserving", "all"]))
def test_it_is_the_papers_sum_over_actions(seed: int, gate: str, weight: float, denominator: str) -> None:
    batch = ready(seed)
    advantages = batch["outcome_advantage"]
    total, count = 0.0, 0
    for i in range(batch.size):
        tokens = batch.mask[i].nonzero()[:, 0].tolist()
        if denominator == "all" or advantages[i] >= -1e-9:
            count += len(tokens)
        if advantages[i] < -1e-9:
            continue
        if gate == "response":
            actions = [tokens]
        else:
            actions = []
            for t in tokens:
                if gate == "action" and actions and actions[-1][-1] == t - 1:
                    actions[-1].append(t)
                else:
                    actions.append([t])
        for action in actions:
            drops = [float(batch.old_logp[i, t] - batch.logp[i, t]) for t in action]
            if sum(drops) > 0:
                scale = [weight if batch["answer_mask"][i, t] else 1.0 for t in action]
                total += sum(w * max(0.0, d) for w, d in zip(scale, drops, strict=True))
    assert penalty(batch, gate, weight, denominator) == pytest.approx(total / max(1, count))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.sampled_from(GATES), st.sampled_from([1.0, 0.3]), st.floats(0, 2))
def test_its_gradient_is_constant_on_penalised_tokens_and_nothing_elsewhere(
    seed: int, gate: str, weight: float, coef: float
) -> None:
    batch = ready(seed)
    weights, kept = penalised(batch, gate=gate, answer_weight=weight)
    count = (batch.mask & kept[:, None]).sum().clamp(min=1)
    method = f"llds(coef={coef}, gate='{gate}', answer_weight={weight})"
    added = gradient(method, batch) - gradient("grpo(kl_beta=0.0)", batch)
    assert torch.allclose(added, -coef * weights / count)
    acting = weights > 0
    assert bool((batch.old_logp > batch.logp)[acting].all())
    assert bool((batch["outcome_advantage"][:, None].expand_as(weights)[acting] >= 0).all())


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_a_policy_that_did_not_move_or_only_rose_is_not_penalised(seed: int) -> None:
    batch = ready(seed)
    for gate in GATES:
        assert penalty(batch.replace(logp=batch._tokens["old_logp"]), gate) == 0
        assert penalty(batch.replace(logp=batch.old_logp + 0.1), gate) == 0
        assert penalty(batch.replace(logp=batch.old_logp - 0.1), gate) == pytest.approx(0.1)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_gates_compare(seed: int) -> None:
    batch = ready(seed)
    assert penalty(batch, "token") >= penalty(batch, "action") - 1e-12
    assert penalty(batch, "action", 0.3) <= penalty(batch, "action") + 1e-12
    assert penalty(batch, denominator="all") <= penalty(batch) + 1e-12
    # One action a rollout: the gates of action and rollout agree.
    whole = batch.replace(mask=torch.arange(8) < batch.mask.sum(1, keepdim=True))
    assert penalty(whole, "action") == penalty(whole, "response")


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_without_coefficient_it_is_grpo(seed: int) -> None:
    batch = ready(seed)
    assert torch.equal(gradient("llds(coef=0.0)", batch), gradient("grpo(kl_beta=0.0)", batch))


@pytest.mark.parametrize("reward", [0.0, 0.7, 1.0])
def test_rollouts_of_a_group_without_signal_are_kept(reward: float) -> None:
    batch = random_batch(3, drift=0.5, dtype=torch.float32)
    batch = registry.method("llds").bind().assign(batch.replace(rewards=torch.full_like(batch.rewards, reward)))
    _, kept = penalised(batch, gate="action", answer_weight=1.0)
    assert bool(kept.all())
    assert gradient("llds", batch).any()
    assert not gradient("grpo(kl_beta=0.0)", batch).any()


def test_descent_raises_the_likelihood_that_fell() -> None:
    batch = ready(5)
    weights, _ = penalised(batch, gate="action", answer_weight=1.0)
    batch = batch.replace(advantages=torch.zeros_like(batch.advantages))
    assert bool((gradient("llds", batch)[weights > 0] < 0).all())


def test_an_action_is_an_unbroken_run() -> None:
    mask = torch.tensor([[1, 1, 0, 1, 0, 0, 1, 1], [0, 1, 1, 1, 1, 0, 0, 0]], dtype=torch.bool)
    x = torch.arange(16, dtype=torch.float64).reshape(2, 8)
    found = torch.where(mask, action_sums(x, mask), -1.0)
    assert found.tolist() == [[1, 1, -1, 3, -1, -1, 13, 13], [-1, 42, 42, 42, 42, -1, -1, -1]]


def test_answers_are_marked_in_the_texts_where_they_weigh_less() -> None:
    texts = ["so <answer>4</answer>, no: <answer>42</answer>.", "none", "<answer>open"]
    request = Request(Prompt("p", "p", (1,), "p"), (1,), 0, 64)
    rollouts = [rollout_of(request, [ord(c) for c in text], text=text) for text in texts]
    width = max(map(len, texts))
    mask = torch.arange(width) < torch.tensor([len(text) for text in texts])[:, None]
    batch = Batch(mask=mask, rollouts={"group": torch.zeros(3, dtype=torch.int64)})
    decode = lambda tokens: "".join(map(chr, tokens))  # noqa: E731
    access = ModelAccess(rollouts, *[None] * 4, decode, *[None] * 2)  # type: ignore[arg-type]
    marked = registry.method("llds(answer_weight=0.2)").bind().on_scored(batch, access)["answer_mask"]
    said = [
        "".join(c for c, inside in zip(text, row, strict=False) if inside)
        for text, row in zip(texts, marked, strict=True)
    ]
    assert said == ["42", "", "open"]
    assert "answer_mask" not in registry.method("llds").bind().on_scored(batch, access)
    assert "answer_mask" not in registry.method("llds").needs(loss=True)
