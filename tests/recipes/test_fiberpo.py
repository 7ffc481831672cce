"""FiberPO: a budget for every scale at which the policy moves."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.axes import ratio
from cohort.types import Batch, Prompt, Request
from cohort.types.access import ModelAccess
from tests.axes.test_properties import close, run
from tests.helpers import random_batch, rollout_of

SEEDS = st.integers(0, 10_000)
BUDGETS = st.floats(0.001, 0.5)
INF = float("inf")


def gradient(method: str, batch: Batch) -> Tensor:
    return run(registry.method(method), batch)[1]["logp"]


def ratios(batch: Batch, **hyper: object) -> Tensor:
    return registry.method("fiberpo", **hyper).stage("ratio")(batch)


def with_domains(batch: Batch) -> Batch:
    return batch.with_rollouts(domain=batch.group % 2)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_without_limits_it_is_the_unclipped_ratio(seed: int) -> None:
    batch = random_batch(seed, drift=0.8)
    for how in (
        f"delta_trajectory={9e9}, epsilon={9e9}",
        f"levels=4, delta_trajectory={9e9}, epsilon={9e9}, delta_group={9e9}, delta_domain={9e9}",
        f"delta={9e9}",
    ):
        made = registry.method(f"fiberpo({how})")
        assert torch.allclose(made.stage("ratio")(batch), ratio.token(batch))
        want = made.bind().assign(batch).advantages * -ratio.token(batch) * made.bind().weights(batch)
        assert torch.allclose(gradient(f"fiberpo({how})", batch), torch.where(batch.mask, want, 0.0))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.booleans())
def test_without_budget_nothing_moves(seed: int, on_policy: bool) -> None:
    batch = random_batch(seed)
    batch = batch.replace(logp=batch._tokens["old_logp"]) if on_policy else batch
    for how in (
        "delta_trajectory=0, epsilon=0",
        "levels=4, delta_trajectory=0, epsilon=0, delta_group=0, delta_domain=0",
    ):
        assert torch.equal(registry.method(f"fiberpo({how})").stage("ratio")(batch), torch.ones_like(batch.logp))
        assert not gradient(f"fiberpo({how})", batch).any()


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_on_policy_it_is_the_policy_gradient(seed: int) -> None:
    batch = random_batch(seed)
    batch = with_domains(batch.replace(logp=batch._tokens["old_logp"]))
    want = gradient("grpo(kl_beta=0.0)", batch)
    for how in ("", "(levels=4)", "(delta=0.1)"):
        assert torch.allclose(gradient(f"fiberpo{how}", batch), want)


@settings(max_examples=15, deadline=None)
@given(SEEDS, BUDGETS, BUDGETS, BUDGETS, BUDGETS)
def test_the_ratio_stays_within_the_sum_of_the_budgets(seed: int, d: float, g: float, t: float, e: float) -> None:
    batch = with_domains(random_batch(seed, drift=1.0))
    two = ratios(batch, delta_trajectory=t, epsilon=e)
    four = ratios(batch, levels=4, delta_domain=d, delta_group=g, delta_trajectory=t, epsilon=e)
    assert float(two.log().abs().max()) <= t + e + 1e-12
    assert float(four.log().abs().max()) <= d + g + t + e + 1e-12


@settings(max_examples=15, deadline=None)
@given(SEEDS, BUDGETS, BUDGETS)
def test_with_open_coarse_gates_the_trajectory_is_measured_from_its_group(seed: int, t: float, e: float) -> None:
    batch = with_domains(random_batch(seed, drift=1.0))
    made = ratios(batch, levels=4, delta_domain=INF, delta_group=INF, delta_trajectory=t, epsilon=e)
    moved = batch.logp - batch.old_logp
    a = moved.sum(1) / batch.mask.sum(1).clamp(min=1)
    there = batch.mask.any(1)
    b = torch.stack([a[there & (batch.group == g)].mean() for g in batch.group]).nan_to_num()
    want = b + (a - b).clamp(-t, t)
    want = (want[:, None] + (moved - a[:, None]).clamp(-e, e)).exp()
    assert torch.allclose(made[batch.mask], want[batch.mask])


@settings(max_examples=15, deadline=None)
@given(SEEDS, BUDGETS)
def test_a_trajectory_within_its_total_variation_is_untouched(seed: int, delta: float) -> None:
    batch = random_batch(seed, drift=0.2)
    deviation = torch.where(batch.mask, ratio.token(batch) - 1, 0.0)
    made = ratios(batch, delta=delta)
    within = deviation.abs().sum(1) <= batch.mask.sum(1) * delta
    assert torch.allclose(made[within], (1 + deviation)[within])
    spent = torch.where(batch.mask, made - 1, 0.0).abs()
    assert bool((spent <= deviation.abs() + 1e-12).all())
    assert bool((spent.amax(1) <= batch.mask.sum(1) * delta + 1e-12).all())


def test_a_shut_gate_gives_no_gradient_for_either_sign() -> None:
    batch = random_batch(0, groups=(2, 2), width=3, empty=False)
    everything = torch.ones_like(batch.mask)
    moved = torch.tensor([[2.0], [2.0], [-2.0], [-2.0]], dtype=torch.float64).expand(4, 3)
    batch = batch.replace(mask=everything, old_logp=torch.zeros_like(moved), logp=moved.clone())
    batch = batch.replace(group=torch.tensor([0, 0, 1, 1]), rewards=torch.tensor([1.0, 0.0, 1.0, 0.0]).double())
    # Every token moved alike, so residuals are 0 and only the trajectory's gate acts, where it is shut.
    residual = gradient("fiberpo(delta_trajectory=0.05)", batch)
    assert torch.allclose(residual, torch.zeros_like(residual))
    assert gradient("fiberpo(delta_trajectory=3.0)", batch).all()
    assert gradient("grpo(kl_beta=0.0)", batch).any()


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_the_gradient_of_a_domain_reaches_all_of_it_and_nothing_else(seed: int) -> None:
    batch = with_domains(random_batch(seed, groups=(3, 3, 3), drift=0.01, empty=False))
    logp = batch._tokens["logp"].clone().requires_grad_()
    made = ratios(
        batch.with_tokens(logp=logp), levels=4, delta_domain=INF, delta_group=0, delta_trajectory=0, epsilon=0
    )
    (pull,) = torch.autograd.grad(made[batch["domain"] == 0][:, 0].sum(), logp)
    assert torch.equal(pull != 0, batch.mask & (batch["domain"] == 0)[:, None])


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.sampled_from(["(levels=4)", "(levels=4, domain='domain')", "(delta=0.1)"]))
def test_order_padding_and_what_is_masked_do_not_matter(seed: int, how: str) -> None:
    method, batch = registry.method(f"fiberpo{how}"), with_domains(random_batch(seed, groups=(4, 2, 3)))
    loss, grad, _ = run(method, batch)
    order = torch.randperm(batch.size, generator=torch.Generator().manual_seed(seed))
    moved, grad_moved, _ = run(method, batch.select(order))
    assert close(loss, moved)
    assert torch.allclose(grad["logp"][order], grad_moved["logp"])
    spoilt = {
        k: torch.where(batch.mask, v, torch.nan) if v.is_floating_point() else v for k, v in batch._tokens.items()
    }
    other, grad_other, _ = run(method, batch.with_tokens(**spoilt))
    assert close(loss, other)
    assert torch.allclose(grad["logp"], grad_other["logp"])


def test_huge_ratios_stay_finite_and_within_the_budget() -> None:
    batch = random_batch(1)
    sign = torch.where(torch.arange(batch.mask.shape[1]) % 2 == 0, 30.0, -30.0)
    batch = batch.replace(old_logp=batch.old_logp.float(), logp=(batch.old_logp + sign).float())
    batch = batch.replace(rewards=batch.rewards.float())
    for how in ("", "(levels=4)", "(delta=0.1)"):
        loss, grad, _ = run(registry.method(f"fiberpo{how}"), batch)
        assert torch.isfinite(loss)
        assert torch.isfinite(grad["logp"]).all()
    spent = (ratios(batch, delta=0.1) - 1).abs()[batch.mask]
    assert float(spent.max()) <= 0.1 * batch.mask.shape[1]


def test_domains_come_from_the_data() -> None:
    method = registry.method("fiberpo(levels=4, domain='topic')")
    assert method.columns == {"topic": "domain_ratio"}
    assert method.couples
    assert registry.method("fiberpo(levels=4)").couples
    assert registry.method("fiberpo(levels=4)").columns == {}
    assert not registry.method("fiberpo").couples
    requests = [Request(Prompt(p, p, (1,), p, {"topic": topic}), (1,), 0, 4) for p, topic in ["a1", "b2", "c1"]]
    rollouts = [rollout_of(request, [1]) for request in requests]
    batch = Batch(mask=torch.ones(3, 1), rollouts={"group": torch.arange(3)})
    found = method.bind().on_scored(batch, ModelAccess(rollouts, *[None] * 7))["domain"]  # type: ignore[arg-type]
    assert found[0] == found[2]
    assert found[0] != found[1]
