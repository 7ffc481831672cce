"""How an update is computed is chosen by configuration, and does not change what it comes to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cohort.errors import UsageError
from cohort.policies import packing, stream
from cohort.policies.causal_lm import CausalLM
from cohort.training import models as loading
from cohort.training.config import make_config
from cohort.training.loop import one_step
from cohort.training.models import compile_policy
from tests.cli.command import run
from tests.helpers import tiny_policy
from tests.micro import ready
from tests.stepping import run_of


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def test_a_run_is_the_same_whatever_is_kept(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "SHARE_SECONDS", -1e9)
    monkeypatch.setattr(stream, "CHUNK", 20)
    weights, norms = {}, {}
    for activations in ("keep", "checkpoint", "stream"):
        # Two micro-batches, a teacherless method with a reference: passes with and without gradient.
        with ready(models, "grpo", steps=2, activations=activations, micro_tokens=300) as (setup, optimizer, progress):
            assert setup.policy.activations == activations
            norms[activations] = [one_step(run_of(setup, optimizer, progress)).metrics["grad_norm"] for _ in range(2)]
            weights[activations] = [p.detach().clone() for p in setup.policy.trainable()]
    for activations in ("checkpoint", "stream"):
        assert norms[activations] == pytest.approx(norms["keep"], rel=1e-4)
        for a, b in zip(weights[activations], weights["keep"], strict=True):
            assert torch.allclose(a, b, atol=1e-4)


def test_seconds_of_compiling_are_reported_once(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "compile_layers", lambda _: 12.5)
    with ready(models, "grpo", steps=2, compile=True) as (setup, optimizer, progress):
        first, second = (one_step(run_of(setup, optimizer, progress)).metrics for _ in range(2))
    assert first["time/compile"] == 12.5
    assert "time/compile" not in second


def test_compiling_is_left_alone_where_it_would_not_pay_or_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[CausalLM] = []

    def fails(policy: CausalLM) -> float:
        calls.append(policy)
        raise UsageError("compile: no compiler")

    monkeypatch.setattr(loading, "compile_layers", fails)
    policy, said = tiny_policy(), list[str]()
    long = {"steps": 100_000}
    assert compile_policy(make_config(long), policy, said.append) == 0.0
    assert compile_policy(make_config(long, {"compile": False}), policy, said.append) == 0.0
    assert (calls, said) == ([], [])
    with pytest.raises(UsageError, match="no compiler"):
        compile_policy(make_config({"compile": True}), policy, said.append)
    # On a GPU a long run tries, and does without where it cannot.
    monkeypatch.setattr(CausalLM, "device", torch.device("cuda"))
    assert compile_policy(make_config({"steps": 10}), policy, said.append) == 0.0
    assert len(calls) == 1
    assert compile_policy(make_config(long), policy, said.append) == 0.0
    assert len(calls) == 2
    assert "going on without" in said[-1]


@pytest.mark.parametrize(("option", "key"), [("--activations", "activations"), ("--set", "compile")])
def test_what_is_no_choice_is_refused(option: str, key: str) -> None:
    status, _, err = run("train", option, "compile=some" if option == "--set" else "some")
    assert status == 2
    assert key in err
    assert "some" in err
