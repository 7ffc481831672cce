"""A decoding step of the compiled code gives the logits that a model's modules give."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from cohort.engine.base import Sampling
from cohort.engine.native import building, fused
from cohort.engine.native.engine import NativeEngine
from cohort.engine.native.fused import FusedStep
from cohort.engine.native.plain import PlainStep
from cohort.engine.native.reading import Caches
from cohort.engine.native.shared import SharedDecoder
from cohort.policies.causal_lm import CausalLM
from cohort.types import Request
from tests.engine.native.test_plain import both
from tests.engine.native.test_shared import LIKE_LLAMA, orders
from tests.helpers import compiled, prompt_of, request_of, tiny_config, tiny_policy

pytestmark = pytest.mark.skipif(not compiled(), reason="needs gcc on Linux, x86-64")


@pytest.fixture(params=["whole", "narrow"])
def vectors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code as it is compiled here, and as for a processor with AVX2 alone."""
    if request.param == "narrow":
        monkeypatch.setattr(building, "FLAGS", (*building.FLAGS, "-mno-avx512f"))


def agrees(policy: CausalLM, requests: list[Request]) -> None:
    got, right = both(policy, rows=len(requests), kind=FusedStep, requests=requests)
    assert got.shape == right.shape
    torch.testing.assert_close(got, right, rtol=1e-5, atol=1e-5)


def policy_of(config: Any, seed: int = 0) -> CausalLM:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(3.0) if parameter.ndim == 2 else parameter.add_(0.3 * torch.randn_like(parameter))
            assert "weight" in name or "bias" in name
    return CausalLM(model, tiny_policy().renderer.tokenizer, name="drawn")


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize("kind", LIKE_LLAMA)
@pytest.mark.parametrize(("rows", "columns"), [(1, 256), (2, 1), (15, 7)])
def test_logits_agree(kind: str, rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "COLUMNS", columns)
    policy = tiny_policy(kind)
    assert FusedStep.serves(policy.base)
    agrees(policy, [request for request in orders(policy) if request.max_new_tokens > 3][:rows])


@given(
    kind=st.sampled_from([LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config]),
    key_heads=st.integers(1, 3),
    repeats=st.sampled_from([1, 2, 3, 7, 20]),
    half=st.sampled_from([1, 4, 8, 12, 20]),
    share=st.integers(1, 5),
    inner=st.sampled_from([5, 40]),
    window=st.integers(1, 40),
    biased=st.booleans(),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    rows=st.integers(1, 37),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_logits_agree_for_models_and_rows_of_any_size(
    kind: Any,
    key_heads: int,
    repeats: int,
    half: int,
    share: int,
    inner: int,
    window: int,
    biased: bool,
    lengths: list[int],
    rows: int,
    seed: int,
) -> None:
    extra: dict[str, Any] = {}
    if kind is MistralConfig:
        extra["sliding_window"] = window
    if kind is LlamaConfig:
        extra.update(attention_bias=biased, mlp_bias=biased)
    config = kind(
        vocab_size=102,
        hidden_size=key_heads * repeats * share,
        intermediate_size=inner,
        num_hidden_layers=2,
        num_attention_heads=key_heads * repeats,
        num_key_value_heads=key_heads,
        head_dim=2 * half,
        max_position_embeddings=128,
        eos_token_id=1,
        pad_token_id=0,
        bos_token_id=2,
        tie_word_embeddings=biased,
        **extra,
    )
    policy = policy_of(config, seed)
    g = torch.Generator().manual_seed(seed)
    prompts = [
        prompt_of(policy, "".join(chr(97 + i) for i in torch.randint(26, (n,), generator=g).tolist())) for n in lengths
    ]
    agrees(policy, [request_of(prompts[i % len(prompts)], seed=i, count=8) for i in range(rows)])


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize("kind", ["qwen2", "mistral"])
def test_rollouts_longer_than_a_block_of_the_cache_agree(kind: str) -> None:
    policy = tiny_policy(kind)
    requests = [request_of(prompt_of(policy, "12+34="), seed=i, count=100 - i) for i in range(20)]
    drawn = {}
    for way in (FusedStep, PlainStep):
        engine = NativeEngine(policy)
        vars(engine)["kind"] = way
        drawn[way] = dict(engine.generate(requests, Sampling(stop_ids=frozenset())))
    for place, completion in drawn[PlainStep].items():
        assert drawn[FusedStep][place].tokens == completion.tokens
        assert drawn[FusedStep][place].logp == pytest.approx(completion.logp, abs=1e-4)


@pytest.mark.usefixtures("vectors")
def test_the_numbers_of_a_row_do_not_depend_on_the_others() -> None:
    policy = tiny_policy("qwen3")
    prompts = [prompt_of(policy, text) for text in ("12+34=", "hello there you", "x")]
    requests = [request_of(prompts[i % 3], seed=i, count=40) for i in range(37)]

    def numbers(chosen: list[int], slots: int = 64) -> dict[int, tuple[list[int], list[float]]]:
        engine = NativeEngine(policy, slots=slots)
        assert engine.kind is FusedStep
        drawn = dict(engine.generate([requests[i] for i in chosen], Sampling()))
        return {i: (drawn[place].tokens, drawn[place].logp) for place, i in enumerate(chosen)}

    whole = numbers(list(range(37)))
    for chosen, slots in (([5], 64), ([3, 31], 64), (list(range(20, 37)), 64), (list(range(37)), 5)):
        found = numbers(chosen, slots)
        assert found == {i: whole[i] for i in chosen}  # to the last bit


def with_adapter(kind: str = "qwen2", **options: Any) -> CausalLM:
    policy = tiny_policy(kind)
    policy.add_lora(4, **options)
    torch.manual_seed(1)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return policy


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "down_proj"]])
def test_adapters_are_served(targets: str | list[str]) -> None:
    policy = with_adapter(targets=targets)
    assert NativeEngine(policy).kind is FusedStep
    requests = [request for request in orders(policy) if request.max_new_tokens > 3]
    agrees(policy, requests)
    with policy.model.disable_adapter():
        assert FusedStep.serves(policy.base)
        agrees(policy, requests)
        without, _ = both(policy, kind=FusedStep)
    found, _ = both(policy, kind=FusedStep)
    assert float((found - without).abs().max()) > 0.01


def test_what_the_code_does_not_compute_is_left_to_others() -> None:
    policy = with_adapter()
    layer = policy.base.base_model.layers[0].mlp.up_proj
    own = layer.forward
    layer.forward = lambda x: 2 * own(x)
    assert not FusedStep.serves(policy.base)
    assert NativeEngine(policy).kind is PlainStep

    for kind, changes in (
        ("gemma2", {}),
        ("llama", {"hidden_act": "gelu"}),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}),
    ):
        config = tiny_config(kind)
        for name, value in changes.items():
            setattr(config, name, value)
        assert not FusedStep.serves(policy_of(config).base), changes

    for dtype in (torch.bfloat16, torch.float64):
        assert not FusedStep.serves(tiny_policy(dtype=dtype).base)
    policy = tiny_policy()
    policy.base.base_model.layers[0].mlp.up_proj.weight = torch.nn.Parameter(
        policy.base.base_model.layers[0].mlp.up_proj.weight.detach().t().contiguous().t()
    )
    assert not FusedStep.serves(policy.base)


def test_rotations_that_are_scaled_by_a_rule_are_served() -> None:
    config = tiny_config("llama")
    config.rope_parameters = {"rope_type": "linear", "factor": 3.0, "rope_theta": 1e4}
    policy = policy_of(config)
    assert FusedStep.serves(policy.base)
    agrees(policy, [request for request in orders(policy) if request.max_new_tokens > 3])


def test_weights_are_those_of_the_call() -> None:
    policy = tiny_policy("llama")
    both(policy, kind=FusedStep)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.5)
    got, right = both(policy, kind=FusedStep)
    torch.testing.assert_close(got, right, rtol=1e-5, atol=1e-5)


def test_any_number_of_threads_gives_the_same() -> None:
    policy = tiny_policy("qwen3")
    requests = [request for request in orders(policy) if request.max_new_tokens > 3]
    decoder = SharedDecoder(policy, requests, Sampling(stop_ids=frozenset()), slots=64, kind=FusedStep)
    before, found = torch.get_num_threads(), []
    with torch.inference_mode():
        decoder._admit(64)
        decoder._arrange()
        try:
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                found.append(decoder._forward())
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(each, found[0]) for each in found)


def test_without_a_compiler_steps_are_taken_in_torch_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy("qwen3")
    requests = orders(policy)
    right = {i: c.tokens for i, c in NativeEngine(policy).generate(requests, Sampling())}
    monkeypatch.setenv("CC", "no-such-compiler")
    engine = NativeEngine(policy)
    with pytest.warns(RuntimeWarning, match="half as fast.*no C compiler \\(no-such-compiler\\): install gcc"):
        assert engine.kind is PlainStep
    assert {i: c.tokens for i, c in engine.generate(requests, Sampling())} == right


@pytest.mark.parametrize("part", ["step", "keys", "logits"])
def test_code_that_gives_other_numbers_is_not_used(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step, read = FusedStep.__call__, FusedStep.read

    def wrong_step(self: FusedStep, decoder: SharedDecoder) -> Tensor:
        return step(self, decoder) * 1.01

    def wrong_contexts(self: FusedStep, readings: Any, own: Caches, shared: Any) -> Tensor:
        logits = read(self, readings, own, shared)
        if part == "keys":
            own[0][0].mul_(1.1)
        return logits * (1.01 if part == "logits" else 1.0)

    if part == "step":
        monkeypatch.setattr(FusedStep, "__call__", wrong_step)
    else:
        monkeypatch.setattr(FusedStep, "read", wrong_contexts)
    assert NativeEngine(tiny_policy("qwen3")).kind is PlainStep


def test_an_engine_compiles_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COHORT_CACHE", str(tmp_path))
    building._attempt.cache_clear()
    run, commands = building._run, []
    monkeypatch.setattr(building, "_run", lambda command: commands.append(command) or run(command))
    for _ in range(2):
        assert isinstance(fused.code(), ctypes.CDLL)
        building._attempt.cache_clear()  # as a second process
    assert [command[-1] for command in commands] == ["--version", "-lm", "--version"]
    assert [path.suffix for path in tmp_path.iterdir()] == [".so"]
