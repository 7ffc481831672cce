"""Running out of memory while scoring: smaller micro-batches, the same result."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cohort.errors import UsageError, out_of_memory
from cohort.policies.passes import log_probs, retry_on_oom
from cohort.policies.sequences import Sequences
from cohort.training.update import gradient
from tests import micro
from tests.helpers import in_float64, prompt_of, tiny_policy
from tests.stepping import run_of, sample

SHORTAGES: list[Callable[[], Exception]] = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate memory"),
    lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8589934592 bytes."),
    MemoryError,
]


@pytest.mark.parametrize("shortage", SHORTAGES)
def test_every_kind_of_shortage_is_known(shortage: Callable[[], Exception]) -> None:
    assert out_of_memory(shortage())


def test_other_errors_are_none() -> None:
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize("name", ["grpo", "disco"])
def test_the_gradient_is_the_same_after_a_shortage_in_the_middle(
    micro_root: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that comes after a finished micro-batch, when half of the next one's gradients have been added: for a method
    whose rollouts add up, and one that couples them."""
    with micro.method_ready(micro_root, name, prompts_per_step=3, group_size=4) as (setup, _, progress):
        in_float64(setup.policy)
        run = run_of(setup, None, progress)
        rollouts, _, method = sample(run)
        batch = run.batches.complete(method, run.batches.scored(method, rollouts), rollouts)
        batch = method.assign(method.shape(batch))
        batch = batch.replace(old_logp=batch["sampler_logp"])
        sequences, policy = setup.policy.actions(rollouts), setup.policy
        # Micro-batches of a few rollouts each, so that a half is smaller.
        micro_tokens = (
            max(sum(map(len, (c, o))) for c, o in zip(sequences.context, sequences.completion, strict=True)) * 3
        )
        parts = len(policy.micro_batches(sequences, micro_tokens))
        assert parts >= 2

        def pass_() -> tuple[Any, dict[str, torch.Tensor]]:
            policy.model.zero_grad()
            how: dict[str, Any] = {"temperature": 1.0, "micro_tokens": micro_tokens, "on_policy": False}
            done = retry_on_oom(policy, lambda: gradient(policy, method, batch, sequences, **how))
            return done, {n: p.grad.clone() for n, p in policy.model.named_parameters() if p.grad is not None}

        expected, grads = pass_()
        whole, sizes, wait = policy.log_probs, [], [parts + 1 if setup.method.couples else 1]

        def short(part: Sequences, **how: Any) -> Any:
            sizes.append(len(part))
            wait[0] -= 1
            if wait[0] == -1:
                # As if the backward pass had come half through.
                for p in policy.trainable()[::2]:
                    p.grad = torch.ones_like(p) if p.grad is None else p.grad + 1.0
                raise SHORTAGES[0]()
            return whole(part, **how)

        monkeypatch.setattr(policy, "log_probs", short)
        with pytest.warns(RuntimeWarning, match="half as large"):
            done, again = pass_()
        assert done.loss == pytest.approx(expected.loss, abs=1e-9)
        for field in ("logp", "policy_gradient"):
            assert torch.allclose(done.fields[field], expected.fields[field], atol=1e-9)
        assert grads.keys() == again.keys()
        assert all(torch.allclose(grads[n], again[n], atol=1e-9) for n in grads)
        largest = max(sizes[: sizes.index(max(sizes)) + 1])
        assert sizes[-1] <= -(-largest // 2)

        # From then on nothing more is tried at the old size, nor said.
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _, later = pass_()
        assert all(torch.allclose(grads[n], later[n], atol=1e-9) for n in grads)
        # Halves that are too large as well end the run with advice.
        wait[0] = 0
        with pytest.raises(UsageError, match="lower micro_tokens"):
            pass_()


def test_scores_are_the_same_after_a_shortage(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy(dtype=torch.float64)
    contexts = tuple(torch.tensor(prompt_of(policy, text).tokens) for text in ("1+1=", "what?", "ab", "x"))
    sequences = Sequences(contexts, tuple(torch.arange(6, 6 + n) for n in (4, 2, 5, 3)))
    how: dict[str, Any] = {"width": 5, "temperature": 0.9, "micro_tokens": 10**6}
    expected = log_probs(policy, sequences, **how)["logp"]
    whole, sizes = policy.log_probs, []

    def short(part: Sequences, **how: Any) -> Any:
        sizes.append(len(part))
        if len(part) > 2:
            raise SHORTAGES[2]()
        return whole(part, **how)

    monkeypatch.setattr(policy, "log_probs", short)
    with pytest.warns(RuntimeWarning, match="out of memory"):
        found = log_probs(policy, sequences, **how)["logp"]
    assert sizes == [4, 2, 2]
    assert torch.allclose(found, expected, atol=1e-9)
