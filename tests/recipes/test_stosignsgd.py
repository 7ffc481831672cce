"""StoSignSGD: signs that are right on average."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort import registry
from cohort.recipes.stosignsgd import StoSignSGD, expected

SEEDS = st.integers(0, 10_000)


def optimizer(params: list[torch.nn.Parameter], lr: float = 0.1, **hyper: float) -> StoSignSGD:
    made = registry.method("stosignsgd", **hyper).stage("optimizer")(params, lr)
    assert isinstance(made, StoSignSGD)
    return made


def parameter(size: int = 6, seed: int = 0) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


def gradients(steps: int, size: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(steps, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def walk(made: StoSignSGD, p: torch.nn.Parameter, grads: Tensor) -> list[Tensor]:
    """The parameter after each step."""
    out = []
    for grad in grads:
        p.grad = grad.clone()
        made.step()
        out.append(p.detach().clone())
    return out


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.floats(0, 0.99), st.floats(0.01, 0.5))
def test_every_step_moves_by_lr_and_the_buffer_bounds_the_momentum(seed: int, beta1: float, lr: float) -> None:
    p, grads = parameter(), gradients(5, seed=seed)
    made = optimizer([p], lr, beta1=beta1)
    before, largest = p.detach().clone(), torch.zeros(6, dtype=torch.float64)
    for after, _ in zip(walk(made, p, grads), grads, strict=True):
        assert torch.allclose((after - before).abs(), torch.full_like(after, lr))
        before = after
    momentum = torch.zeros(6, dtype=torch.float64)
    for grad in grads:
        momentum = beta1 * momentum + (1 - beta1) * grad
        largest = torch.maximum(largest, momentum.abs())
    assert torch.allclose(made.state[p]["momentum"], momentum)
    assert torch.allclose(made.state[p]["buffer"], largest)
    assert bool((made.state[p]["momentum"].abs() <= made.state[p]["buffer"]).all())


@settings(max_examples=15, deadline=None)
@given(SEEDS, SEEDS)
def test_the_first_step_is_that_of_signsgd(seed: int, noise: int) -> None:
    p, grads = parameter(200), gradients(1, 200, seed)
    start = p.detach().clone()
    assert torch.allclose(walk(optimizer([p], seed=noise), p, grads)[0], start - 0.1 * grads[0].sign())


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_without_a_buffer_it_is_signsgd_with_momentum(seed: int) -> None:
    p, grads = parameter(), gradients(6, seed=seed)
    made = optimizer([p])
    made.noise = lambda p, place, step, seed: torch.zeros_like(p)  # type: ignore[method-assign]
    momentum, theta = torch.zeros(6, dtype=torch.float64), p.detach().clone()
    for after, grad in zip(walk(made, p, grads), grads, strict=True):
        momentum = 0.9 * momentum + 0.1 * grad
        theta = theta - 0.1 * momentum.sign()
        assert torch.allclose(after, theta)


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(-8, 8))
def test_the_scale_of_the_gradients_does_not_matter(seed: int, power: int) -> None:
    grads = gradients(6, seed=seed)
    one, two = parameter(), parameter()
    for a, b in zip(walk(optimizer([one]), one, grads), walk(optimizer([two]), two, grads * 2.0**power), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("share", [-1.0, -0.3, 0.0, 0.6, 1.0])
def test_the_sign_is_right_on_average(share: float) -> None:
    count = 40_000
    p = torch.nn.Parameter(torch.zeros(count, dtype=torch.float64))
    made = optimizer([p], 1.0, beta1=0.0)
    first, second = torch.ones(count, dtype=torch.float64), torch.full((count,), share, dtype=torch.float64)
    p.grad = first
    made.step()
    before = p.detach().clone()
    p.grad = second
    made.step()
    update = before - p.detach()
    want = expected(second, first)
    assert update.mean().item() == pytest.approx(share, abs=0.02)
    assert float(want.mean[0]) == share
    assert update.var(correction=0).item() == pytest.approx(float(want.variance[0]), abs=0.02)
    assert (update > 0).double().mean().item() == pytest.approx(float(want.prob_plus[0]), abs=0.02)


def test_a_coordinate_without_any_gradient_stays_and_decays() -> None:
    p = parameter()
    start = p.detach().clone()
    grads = gradients(4)
    grads[:, 2] = 0.0
    after = walk(optimizer([p], weight_decay=0.5), p, grads)[-1]
    assert after[2] == pytest.approx(float(start[2]) * 0.95**4)
    assert expected(torch.zeros(1), torch.zeros(1)).prob_plus.tolist() == [0.5]
    assert expected(torch.zeros(1), torch.zeros(1)).variance.tolist() == [0.0]


def test_replicas_agree_and_parameters_steps_and_seeds_do_not() -> None:
    ones = torch.ones(100, dtype=torch.float64)
    noise = StoSignSGD.noise
    here = noise(ones, 1, 2, 3)
    assert torch.equal(here, noise(ones, 1, 2, 3))
    assert not any(torch.equal(here, noise(ones, *at)) for at in ((0, 2, 3), (1, 1, 3), (1, 2, 4), (2, 1, 3)))
    assert bool((here.abs() < 1).all())
    # A parameter that gets no gradient does not shift the noise of those after it.
    grads = gradients(3, 100)
    both = [[parameter(100), parameter(100, seed=1)] for _ in range(2)]
    made = [optimizer(pair) for pair in both]
    for grad in grads:
        both[0][0].grad = torch.zeros(100, dtype=torch.float64)
        for k in (0, 1):
            both[k][1].grad = grad.clone()
            made[k].step()
    assert torch.equal(both[0][1], both[1][1])


def test_a_run_continues_from_its_checkpoint(tmp_path: Path) -> None:
    grads = gradients(8)
    p = parameter()
    whole = walk(optimizer([p]), p, grads)[-1]
    q = parameter()
    made = optimizer([q])
    walk(made, q, grads[:5])
    torch.save({"optimizer": made.state_dict(), "theta": q.detach()}, tmp_path / "state.pt")
    held = torch.load(tmp_path / "state.pt", weights_only=True)
    again = torch.nn.Parameter(held["theta"])
    other = optimizer([again], lr=0.7, seed=5)
    other.load_state_dict(held["optimizer"])
    assert torch.equal(walk(other, again, grads[5:])[-1], whole)
