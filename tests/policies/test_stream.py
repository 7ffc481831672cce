"""What is kept for the backward pass changes its memory, and not its result."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort.errors import UsageError
from cohort.policies import packing, stream
from cohort.policies.activations import layers_of
from cohort.policies.causal_lm import CausalLM
from cohort.policies.compiling import compile_layers
from cohort.policies.sequences import Sequences
from tests.helpers import in_float64, tiny_policy
from tests.policies.test_packing import KINDS, largest, scored, sequences


@pytest.fixture(autouse=True)
def _always_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Share also where it would not pay: the models here are tiny."""
    monkeypatch.setattr(packing, "SHARE_SECONDS", -1e9)


def adapted(kind: str, lora: bool) -> CausalLM:
    policy = tiny_policy(kind)
    if lora:
        torch.manual_seed(0)
        policy.add_lora(2)
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    return policy


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_everything_kept(kind: str, lora: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = in_float64(adapted(kind, lora))
    plain, plain_grads = scored(policy, "shared", sequences())
    # A row of 50 tokens; 7 cuts prompts and rollouts, 21 holds some of them whole.
    for activations, size in (("checkpoint", 0), ("stream", 7), ("stream", 21)):
        policy.use_activations(activations)
        assert policy.activations == activations
        monkeypatch.setattr(stream, "CHUNK", size)
        got, grads = scored(policy, "shared", sequences())
        assert largest((got[name], plain[name]) for name in plain) < 1e-9, activations
        assert largest(zip(grads, plain_grads, strict=True)) < 1e-9, activations


@pytest.mark.parametrize("kind", KINDS)
def test_in_float32_they_agree_to_rounding(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy(kind)
    plain, plain_grads = scored(policy, "shared", sequences(3))
    monkeypatch.setattr(stream, "CHUNK", 7)
    for activations in ("checkpoint", "stream"):
        policy.use_activations(activations)
        got, grads = scored(policy, "shared", sequences(3))
        assert largest((got[name], plain[name]) for name in plain) < 1e-5
        assert largest(zip(grads, plain_grads, strict=True)) < 1e-5


@pytest.fixture(scope="module")
def mixed() -> CausalLM:
    """Soft caps and sliding windows, of 6 tokens."""
    return in_float64(tiny_policy("gemma2"))


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(1, 20), count=st.integers(1, 5), prompts=st.integers(1, 2))
def test_rows_of_any_make_in_chunks_of_any_size(
    mixed: CausalLM, seed: int, size: int, count: int, prompts: int
) -> None:
    g = torch.Generator().manual_seed(seed)

    def random(most: int) -> Tensor:
        return torch.randint(6, 90, (int(torch.randint(1, most, (1,), generator=g)),), generator=g)

    contexts = [random(12) for _ in range(prompts)]
    rows = Sequences(tuple(contexts[i % prompts] for i in range(count)), tuple(random(12) for _ in range(count)))
    mixed.activations = "keep"
    plain, plain_grads = scored(mixed, "shared", rows)
    mixed.activations, before, stream.CHUNK = "stream", stream.CHUNK, size
    try:
        got, grads = scored(mixed, "shared", rows)
    finally:
        stream.CHUNK = before
    assert largest((got[name], plain[name]) for name in plain) < 1e-9
    assert largest(zip(grads, plain_grads, strict=True)) < 1e-9


def kept_bytes(policy: CausalLM, given_: Sequences) -> int:
    """What a pass with gradient has put aside for its backward pass, weights left out."""
    weights = {p.data_ptr() for p in policy.model.parameters()}
    held: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        if x.data_ptr() not in weights:
            held[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        out = policy.log_probs(given_, width=64)["logp"]
    assert out.requires_grad
    return sum(held.values())


def test_only_the_inputs_of_layers_are_kept_and_a_chunk_is_computed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy("qwen3")
    monkeypatch.setattr(stream, "CHUNK", 16)
    rows = Sequences((torch.arange(2, 22),) * 4, tuple(torch.arange(3 + i, 67 + i) for i in range(4)))
    tokens = 20 + 4 * 63
    kept: dict[str, int] = {}
    widest: dict[str, int] = {}
    for activations in ("keep", "checkpoint", "stream"):
        policy.use_activations(activations)
        seen: list[int] = []

        def note(_: Any, given_: tuple[Tensor, ...], __: Tensor, seen: list[int] = seen) -> None:
            seen.append(given_[0].shape[1])

        hook = layers_of(policy.base)[0].mlp.register_forward_hook(note)
        kept[activations] = kept_bytes(policy, rows)
        policy.log_probs(rows, width=64)["logp"].sum().backward()
        hook.remove()
        widest[activations] = max(seen)
    # Everything that is not the layers' own: embeddings, norm, output layer.
    one = tokens * 32 * 4
    assert kept["keep"] - kept["checkpoint"] > 2 * 10 * one
    assert abs(kept["checkpoint"] - kept["stream"]) < one
    assert widest == {"keep": tokens, "checkpoint": tokens, "stream": 16}


def test_scoring_without_gradient_goes_in_chunks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = in_float64(tiny_policy("mistral"))
    with torch.no_grad():
        plain = policy.log_probs(sequences(), width=12)["logp"]
        policy.use_activations("stream")
        monkeypatch.setattr(stream, "CHUNK", 5)
        assert torch.allclose(policy.log_probs(sequences(), width=12)["logp"], plain, atol=1e-9)


def test_a_changed_weight_between_the_passes_is_noticed() -> None:
    policy = tiny_policy("llama")
    policy.use_activations("stream")
    loss = policy.log_probs(sequences(), width=12)["logp"].sum()
    with torch.no_grad():
        layers_of(policy.base)[0].mlp.up_proj.weight.add_(0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_model_that_mixes_positions_elsewhere_is_checkpointed() -> None:
    policy = in_float64(tiny_policy("gpt2"))
    layer = policy.model.transformer.h[0].mlp
    inner = layer.forward
    layer.forward = lambda x: inner(x + torch.nn.functional.pad(x, (0, 0, 1, 0))[:, :-1])
    plain, plain_grads = scored(policy, policy.forward_mode, sequences())
    said: list[str] = []
    policy.use_activations("stream", said.append)
    assert policy.activations == "checkpoint"
    assert "cannot be computed in chunks" in said[0]
    got, grads = scored(policy, policy.forward_mode, sequences())
    assert largest((got[name], plain[name]) for name in plain) < 1e-12
    assert largest(zip(grads, plain_grads, strict=True)) < 1e-12


def test_a_model_without_layers_of_its_own_keeps_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy("llama")
    monkeypatch.setattr("cohort.policies.causal_lm.layers_of", lambda _: [])
    monkeypatch.setattr(stream, "layers_of", lambda _: [])
    said: list[str] = []
    policy.use_activations("stream", said.append)
    assert policy.activations == "keep"
    assert len(said) == 2


def compiled_equals(policy: CausalLM, backend: str) -> float:
    plain, plain_grads = scored(policy, "shared", sequences(3))
    seconds = compile_layers(policy, backend=backend)
    assert policy.compiled is not None
    assert policy.compiled.made
    got, grads = scored(policy, "shared", sequences(3))
    assert largest((got[name], plain[name]) for name in plain) < 1e-5
    assert largest(zip(grads, plain_grads, strict=True)) < 1e-5
    return seconds


def test_what_a_compiler_is_given_computes_the_same() -> None:
    """Tracing alone, which takes seconds; the exhaustive test generates code."""
    torch.compiler.reset()
    policy = tiny_policy("llama")
    policy.base.base_model.layers = policy.base.base_model.layers[:1]
    assert compiled_equals(policy, "eager") > 0


@pytest.mark.exhaustive
@pytest.mark.parametrize("activations", ["keep", "checkpoint", "stream"])
@pytest.mark.parametrize("kind", ["qwen3", "gemma2"])
def test_compiled_layers_compute_the_same(kind: str, activations: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()
    policy = tiny_policy(kind)
    monkeypatch.setattr(stream, "CHUNK", 7)
    policy.use_activations(activations)
    assert compiled_equals(policy, "inductor") > 0


def test_a_compiler_that_fails_is_named_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy("llama")

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(UsageError, match=r"No working C\+\+ compiler found.*set compile to false"):
        compile_layers(policy)
    assert policy.compiled is None
