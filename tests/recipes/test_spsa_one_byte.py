"""One byte a gradient: projections on directions whose seeds are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.axes.optimizer import decode, encode
from cohort.recipes.spsa_one_byte import OneByte
from cohort.rollouts.sources import Sync
from cohort.seeds import generator
from cohort.training.loop import one_step
from cohort.training.precision import MasterWeights
from cohort.training.probing import probed
from cohort.training.trainer import LocalTrainer
from cohort.training.update import gradient
from cohort.types.probing import Probing
from tests import micro
from tests.helpers import in_float64
from tests.stepping import run_of, sample
from tests.test_open_house import PROMPTS, Categorical, Dice, collector, training

SEEDS = st.integers(0, 10_000)


def optimizer(params: Sequence[Any], lr: float = 0.1, **hyper: float) -> OneByte:
    made = registry.method("spsa-one-byte", **hyper).stage("optimizer")(params, lr)
    assert isinstance(made, OneByte)
    assert isinstance(made, Probing)
    return made


def parameters(seed: int = 0) -> list[torch.nn.Parameter]:
    g = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(*shape, generator=g, dtype=torch.float64)) for shape in ((3, 4), (5,))]


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.integers(1, 4))
def test_of_a_quadratic_the_projection_is_that_of_the_gradient_and_weights_stay(seed: int, probes: int) -> None:
    params = parameters(seed)
    before = [p.detach().clone() for p in params]
    made = optimizer(params, epsilon=0.5, probes=probes)
    found = made.measure(lambda: float(sum((p.detach() ** 2).sum() for p in params)), 1)
    assert all(torch.equal(p, old) for p, old in zip(params, before, strict=True))
    for number, value in enumerate(found):
        inner = sum(float((2 * p.detach() * z).sum()) for _, p, z in made.directions(1, number))
        assert value == pytest.approx(inner, rel=1e-9, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.floats(4e-4, 2600), st.booleans(), st.sampled_from([(8.0, 63), (16.0, 127)]))
def test_what_arrives_is_off_by_half_a_step_at_most(value: float, negative: bool, code: tuple[float, int]) -> None:
    value = -value if negative else value
    sent = encode([value], *code)
    assert len(sent) == (1 if code[1] == 63 else 2)
    (arrived,) = decode(sent, *code)
    assert arrived * value > 0
    assert abs(math.log(abs(arrived / value))) <= 0.5 / code[0] + 1e-12


def test_every_byte_is_used_and_what_is_no_number_stays_none() -> None:
    every = [each for byte in range(256) for each in decode(bytes([byte]), 8.0, 63)]
    assert encode(every, 8.0, 63) == bytes(range(256))
    assert math.isnan(every[255])
    assert [math.isnan(decode(encode([value], 8.0, 63), 8.0, 63)[0]) for value in (math.inf, math.nan, 1e300)] == [
        True,
        True,
        False,
    ]


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_machines_end_with_the_same_weights_and_one_that_goes_on_draws_what_it_would_have(seed: int) -> None:
    first, second = parameters(seed), parameters(seed)
    machines = [optimizer(params, probes=2) for params in (first, second)]
    for step in range(4):
        told = [
            made.probe(lambda params=params: float(sum(p.detach().sin().sum() for p in params)), k)
            for k, (made, params) in enumerate(zip(machines, (first, second), strict=True))
        ]
        norms = [made.norm(told) for made in machines]
        for made in machines:
            made.apply(told, 0.5)
        assert norms[0] == norms[1] > 0
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        if step == 1:
            continued = optimizer(second, probes=2)
            continued.load_state_dict(machines[1].state_dict())
            machines[1] = continued


def test_a_gradient_is_cut_to_its_norm_and_of_what_is_no_number_the_norm_is_none() -> None:
    params = parameters()
    before = [p.detach().clone() for p in params]
    made = optimizer(params, lr=1.0, probes=1)
    assert math.isnan(made.norm([made.probe(lambda: math.nan, 0)]))
    directions, told = [z for _, _, z in made.directions(0, 0)], [encode([2000.0], 8.0, 63)]
    assert made.norm(told) == pytest.approx(2000, rel=0.07)
    made.apply(told, 0.25)
    for p, old, z in zip(params, before, directions, strict=True):
        assert torch.allclose(p.detach(), old - 0.25 * z)


def test_weights_are_put_back_where_a_pass_fails() -> None:
    params = [torch.nn.Parameter(p.detach().to(torch.bfloat16)) for p in parameters()]
    before = [p.detach().clone() for p in params]
    master = MasterWeights(params, lambda given: optimizer(given, epsilon=0.1))

    def fails() -> float:
        assert any(not torch.equal(p, old) for p, old in zip(params, before, strict=True))
        raise MemoryError

    with pytest.raises(MemoryError):
        master.probe(fails, 0)
    assert all(torch.equal(p, old) for p, old in zip(params, before, strict=True))


# A surrogate, one whose value is not what it is the derivative of, and rollouts that are coupled.
@pytest.mark.parametrize("name", ["grpo", "cispo", "disco"])
def test_what_is_probed_is_the_gradient_of_the_method(micro_root: Path, name: str) -> None:
    with micro.method_ready(micro_root, name, prompts_per_step=3, group_size=4) as (setup, _, progress):
        in_float64(setup.policy)
        run = run_of(setup, None, progress)
        sampled, _, method = sample(run)
        batch = run.batches.complete(method, run.batches.scored(method, sampled), sampled)
        batch = method.assign(method.shape(batch))
        actions = setup.policy.actions(sampled)
        old = run.batches.with_old_logp(batch, sampled).old_logp
        old = old + 0.1 * torch.randn(batch.mask.shape, generator=generator(0, name)).to(old)
        batch = batch.replace(old_logp=old)
        how: dict[str, Any] = {"temperature": 1.0, "on_policy": False}
        whole = gradient(setup.policy, method, batch, actions, micro_tokens=10**6, **how)
        master = MasterWeights(setup.policy.trainable(), lambda params: optimizer(params, epsilon=1e-5, probes=3))
        inner = master.inner
        assert isinstance(inner, OneByte)
        expected = [
            sum(float((p.grad * z).sum()) for _, p, z in inner.directions(0, number) if p.grad is not None)
            for number in range(3)
        ]
        master.zero_grad()
        found: list[float] = []
        inner.probe = lambda loss, machine: (found.extend(inner.measure(loss, machine)), b"")[1]  # type: ignore[method-assign]
        done, _ = probed(setup.policy, method, batch, actions, master, micro_tokens=30, **how)
        assert all(p.grad is None for p in master.params)
    assert found == pytest.approx(expected, rel=1e-5)
    assert done.loss == pytest.approx(whole.loss, abs=1e-9)
    for field in ("logp", "policy_gradient", "ratio"):
        if field in whole.fields:
            assert torch.allclose(done.fields[field], whole.fields[field], atol=1e-9)


def test_a_policy_of_few_numbers_learns() -> None:
    """Of a dozen numbers, by eight projections a step: how much it takes grows with their number."""
    policy, filled = Categorical(), registry.method("grpo(kl_beta=0.0)")
    engine = Dice(policy)
    run = training(
        policy, filled, lambda batches: Sync(filled, collector(policy, engine), PROMPTS, batches, 4, 16), engine=engine
    )
    assert isinstance(run.trainer, LocalTrainer)
    run.trainer.optimizer = MasterWeights(policy.trainable(), lambda params: optimizer(params, probes=8))
    results = [one_step(run) for _ in range(25)]
    assert all(result.metrics["skipped_updates"] == 0 for result in results)
    assert policy.model.logits.softmax(1)[:, 2].mean() > 0.6


def test_a_model_is_trained_from_the_configuration(micro_root: Path) -> None:
    method = "grpo(kl_beta=0.0)+spsa-one-byte(probes=16)"
    with micro.ready(micro_root, method, lr=0.007, group_size=4, steps=3) as parts:
        _, trained, progress = parts
        before = [p.detach().clone() for p in trained.params]
        results = micro.train(*parts)
        assert all(not torch.equal(p, old) for p, old in zip(trained.params, before, strict=True))
    assert all(result.metrics["grad_norm"] > 0 for result in results)
    assert trained.inner.param_groups[0]["iteration"] == progress.updates == 3
