"""SDPO's identities, what its teacher is shown, and that it learns from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.methods import MethodError
from cohort.signals.distill import demonstrations, distilled, divergence, has_teacher, teacher_contexts
from cohort.types import Batch
from tests import micro, shown
from tests.helpers import access_of, random_batch
from tests.recipes.steps import update_of
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)
ALPHAS = st.sampled_from([0.0, 0.1, 0.5, 0.8, 1.0])


def logits(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=15, deadline=None)
@given(
    seed=SEEDS, alpha=ALPHAS, mode=st.sampled_from(["full_logits", "topk_logits", "sampled_token"]), tail=st.booleans()
)
def test_a_teacher_that_is_the_student_teaches_nothing(seed: int, alpha: float, mode: str, tail: bool) -> None:
    batch = batch_for("sdpo", seed=seed)
    batch = batch.with_tokens(teacher_logits=batch._tokens["logits"])
    logp = batch["logits"].log_softmax(-1).gather(-1, batch["token_ids"][..., None])[..., 0]
    alpha = 1.0 if mode == "sampled_token" else alpha
    method = f"sdpo(mode='{mode}', alpha={alpha}, topk=3, add_tail={tail})"
    loss, grads, _ = update_of(method, batch.replace(logp=logp))
    assert float(loss) == pytest.approx(0.0, abs=1e-12)
    assert all(torch.allclose(grad, torch.zeros_like(grad), atol=1e-12) for grad in grads.values())


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, alpha=ALPHAS)
def test_all_tokens_renormalised_are_the_full_distribution(seed: int, alpha: float) -> None:
    batch = batch_for("sdpo", seed=seed)
    full = update_of(f"sdpo(mode='full_logits', alpha={alpha})", batch)
    every = batch["logits"].shape[-1]
    top = update_of(f"sdpo(mode='topk_logits', alpha={alpha}, topk={every}, add_tail=False)", batch)
    assert torch.allclose(full[0], top[0], atol=1e-12)
    assert torch.allclose(full[1]["logits"], top[1]["logits"], atol=1e-12)
    assert float(full[0]) >= 0


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, alpha=st.floats(0.01, 0.99))
def test_half_way_the_divergence_is_symmetric_and_its_ends_are_the_two_kls(seed: int, alpha: float) -> None:
    p, q = (logits(seed + i, 4, 6).log_softmax(-1) for i in range(2))
    assert torch.allclose(divergence(p, q, alpha=0.5), divergence(q, p, alpha=0.5), atol=1e-12)
    assert torch.allclose(divergence(p, q, alpha=alpha), divergence(q, p, alpha=1 - alpha), atol=1e-9)
    assert torch.allclose(divergence(p, q, alpha=0.0), (q.exp() * (q - p)).sum(-1), atol=1e-12)
    assert (divergence(p, q, alpha=alpha) >= -1e-12).all()
    # Nothing overflows where the two hardly share a token.
    far = divergence((1e4 * p).log_softmax(-1), (-1e4 * q).log_softmax(-1), alpha=alpha)
    assert torch.isfinite(far).all()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, alpha=st.floats(0.01, 0.99), tokens=st.sampled_from([2, 5, 70]))
def test_the_gradient_between_the_ends_is_that_of_the_sum_of_kls(seed: int, alpha: float, tokens: int) -> None:
    student, teacher = logits(seed, 7, tokens).requires_grad_(), logits(seed + 1, 7, tokens)
    upper = logits(seed + 2, 7)
    log_p, log_q = student.log_softmax(-1), teacher.log_softmax(-1)
    log_m = ((1 - alpha) * log_p.exp() + alpha * log_q.exp()).log()
    plain = (1 - alpha) * (log_p.exp() * (log_p - log_m)).sum(-1) + alpha * (log_q.exp() * (log_q - log_m)).sum(-1)
    found = divergence(log_p, log_q, alpha=alpha)
    assert torch.allclose(found, plain, atol=1e-12)
    (got,) = torch.autograd.grad((found * upper).sum(), student, retain_graph=True)
    (want,) = torch.autograd.grad((plain * upper).sum(), student)
    assert torch.allclose(got, want, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_the_sampled_token_has_the_gradient_of_the_reverse_kl_in_expectation(seed: int) -> None:
    """Every token of a vocabulary of five in turn, weighted by its probability."""
    student, teacher = logits(seed, 5).requires_grad_(), logits(seed + 1, 5)
    logp = student.log_softmax(-1)
    batch = Batch.of(torch.ones(5, 1), logp=logp[:, None], token_ids=torch.arange(5)[:, None])
    batch = batch.with_tokens(teacher_logits=teacher.expand(5, 1, 5))
    loss = distilled(batch, batch.mask, mode="sampled_token", alpha=1.0)[:, 0]
    (sampled,) = torch.autograd.grad((logp.exp().detach() * loss).sum(), student, retain_graph=True)
    (exact,) = torch.autograd.grad(divergence(logp, teacher.log_softmax(-1), alpha=1.0), student)
    assert torch.allclose(sampled, exact, atol=1e-12)


def test_sampling_estimates_one_divergence_alone() -> None:
    with pytest.raises(MethodError, match=r"alpha must be 1, not 0\.5"):
        registry.method("sdpo(mode='sampled_token')")


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, aggregation=st.sampled_from(["token", "sequence"]))
def test_only_rollouts_with_a_teacher_count(seed: int, aggregation: str) -> None:
    batch = batch_for("sdpo", seed=seed)
    has = has_teacher(batch)
    loss, grads, ready = update_of(f"sdpo(aggregation='{aggregation}', is_clip=None)", batch)
    assert not grads["logits"][~has].any()
    assert not ready.advantages.any()
    tokens = distilled(batch, batch.mask, alpha=0.5, mode="topk_logits")
    keep = batch.mask & has[:, None]
    if aggregation == "token":
        want = tokens[keep].sum() / max(1, int(keep.sum()))
    else:
        want = ((tokens * keep).sum(1) / keep.sum(1).clamp(min=1)).sum() / batch.size
    assert torch.allclose(loss, want, atol=1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_the_importance_weight_is_bounded_and_constant(seed: int) -> None:
    batch = batch_for("sdpo", seed=seed, drift=5.0)
    plain = distilled(batch, batch.mask & has_teacher(batch)[:, None], alpha=0.5, mode="topk_logits")
    method = registry.method("sdpo(is_clip=1.5)")
    ready = method.bind().prepare(batch).batch
    loss = method.stage("surrogate")(ready, None, None)
    ratio = torch.where(plain > 0, loss / plain, 1.0)
    assert torch.allclose(ratio[plain > 0], (batch.logp - batch.old_logp).exp().clamp(max=1.5)[plain > 0], rtol=1e-6)
    _, grads, _ = update_of("sdpo(is_clip=1.5)", batch)
    assert not grads["logp"].any()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, exclude=st.booleans(), groups=st.sampled_from([(4, 4, 4), (2, 5, 1), (3,)]))
def test_a_demonstration_is_the_first_success_of_the_group(seed: int, exclude: bool, groups: tuple[int, ...]) -> None:
    batch = random_batch(seed, groups=groups)
    correct, group = (batch.rewards == 1).tolist(), batch.group.tolist()
    found = demonstrations(batch.rewards == 1, batch.groups, exclude_self=exclude)
    for i in range(batch.size):
        others = [j for j in range(batch.size) if group[j] == group[i] and correct[j] and not (exclude and j == i)]
        assert int(found[i]) == (others[0] if others else -1)


def contexts(access: Any, rewards: list[float], **how: Any) -> list[str]:
    """What the teacher of each rollout is given, as text."""
    count = len(rewards)
    tokens = max(len(rollout.tokens) for rollout in access.rollouts)
    mask = torch.zeros(count, tokens, dtype=torch.bool)
    for row, rollout in zip(mask, access.rollouts, strict=True):
        row[: len(rollout.tokens)] = True
    labels = [int(rollout.prompt.id) for rollout in access.rollouts]
    batch = Batch.of(mask, group=torch.tensor(labels), rewards=torch.tensor(rewards))
    rendered = replace(access, render=lambda source: access.encode(source))
    made = teacher_contexts(batch, rendered, **how)["teacher_context"]
    return [access.decode([token for token in row if token >= 0]) for row in made.tolist()]


def test_the_teacher_is_shown_a_siblings_solution() -> None:
    access = access_of(["4", "5", "6", "7"], groups=[1, 1, 1, 2])
    how = {"solution_text": " so {}", "ending": " go"}
    given_ = contexts(access, [0.0, 1.0, 1.0, 1.0], **how)
    assert given_ == ["question 1 so 5 go", "question 1 so 6 go", "question 1 so 5 go", ""]
    # Only the threshold matters of a graded reward; without exclusion a success may be shown to itself.
    graded = contexts(access, [0.2, 0.6, 0.4, 0.5], threshold=0.5, exclude_self=False, **how)
    assert graded == ["question 1 so 5 go", "question 1 so 5 go", "question 1 so 5 go", "question 2 so 7 go"]
    wrong = contexts(access, [0.0, 1.0, 1.0, 1.0], wrong_only=True, **how)
    assert wrong == ["question 1 so 5 go", "", "", ""]


def test_feedback_of_the_data_is_shown_where_there_is_no_solution() -> None:
    columns = [{"hint": "add"}, {"hint": "add"}, {"hint": ""}]
    access = access_of(["4", "5", "7"], groups=[1, 1, 2], columns=columns)
    how = {"feedback": "hint", "solution_text": " so {}", "feedback_text": " hint {}", "ending": "."}
    assert contexts(access, [1.0, 0.0, 0.0], **how) == ["question 1 hint add.", "question 1 so 4.", ""]
    both = contexts(access, [1.0, 0.0, 0.0], feedback_only_without_solution=False, **how)
    assert both == ["question 1 hint add.", "question 1 so 4 hint add.", ""]


def test_a_solution_can_be_shown_without_its_thought_and_never_beyond_the_models_context() -> None:
    access = access_of(["hm</think>4", "5"], groups=[1, 1])
    how: dict[str, Any] = {"solution_text": "={}", "ending": ""}
    assert contexts(access, [1.0, 0.0], **how)[1] == "question 1=hm</think>4"
    assert contexts(access, [1.0, 0.0], strip_thought=True, **how)[1] == "question 1=4"
    # Twelve tokens of context, one of the answer and its end.
    for limit, fits in ((14, True), (13, False)):
        short = replace(access, context_length=limit)
        assert bool(contexts(short, [1.0, 0.0], strip_thought=True, **how)[1]) == fits


def test_a_policy_that_reads_demonstrations_learns_from_them(micro_root: Path) -> None:
    """Right answers become likelier by the teacher's distribution alone; with nothing shown nothing is learnt."""
    gains = []
    for text in (shown.SOLUTION, ""):
        method = f"sdpo(solution_text='{text}', ending='')"
        with shown.ready(micro_root, method, steps=12) as (setup, optimizer, progress):
            before = micro.success(setup.policy)
            last = micro.train(setup, optimizer, progress)[-1]
            gains.append(micro.success(setup.policy) - before)
        assert last.metrics["clip_fraction"] == 0.0
    assert gains[0] > 0.3
    assert abs(gains[1]) < 0.05
