"""The limits that a GPU is held against, counted by hand on small shapes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from benchmarks import gpu

# 2 prompts of 4 tokens, 3 rollouts of 5 tokens each; keys of a token take 2 layers x 1 head x 2 numbers, values as many.
SHAPE = gpu.Shape(4, 2, 2, 1, 8, 11, prompts=2, group=3, prompt_len=4, max_new=5, block=2**10, side=8)


def test_a_decoding_step_reads_weights_once_and_a_prompt_once_for_its_group() -> None:
    by_step = [100 + 8 * (2 * 4 + 6 * own) for own in (1, 2, 3, 4)]
    assert gpu.decode_bytes(SHAPE, weights=100, itemsize=2) == 2 * sum(by_step) / len(by_step)


def test_an_update_computes_a_prompt_once_for_its_group() -> None:
    # Places 1 to 4 of the prompt, then 5 to 8 of each rollout, whose last token is not an input.
    pairs = 2 * (sum((1, 2, 3, 4)) + 3 * sum((5, 6, 7, 8)))
    tokens, scored = 2 * (4 + 3 * 4), 2 * 3 * 5
    expected = 6 * (70 * tokens + 40 * scored) + 12 * 2 * 2 * 2 * pairs
    assert gpu.training_flops(SHAPE, body=70, head=40) == expected


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_are_not_multiplied_with(tied: bool) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=11,
        hidden_size=4,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=2,
        tie_word_embeddings=tied,
    )
    layer = 2 * 4 * 4 + 2 * 4 * 2 + 3 * 4 * 8  # queries and output, keys and values, feed-forward
    assert gpu.weights_of(Qwen3ForCausalLM(config)) == (2 * layer, 11 * 4)


def test_it_runs_on_a_cpu(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "TINY", replace(gpu.TINY, hidden=32, max_new=4, block=2**16, side=32))
    assert gpu.main(["--device", "cpu", "--tiny", "--no-trl", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    numbers = {name: value for name, value in found.items() if name != "device"}
    assert all(value > 0 for value in numbers.values()), numbers
    shape = gpu.TINY
    step = shape.rollouts / found["decode_tokens_per_s"]
    weights = sum(numbers_of(shape))
    needed = gpu.decode_bytes(shape, weights, 4) / (found["bandwidth_gb_per_s"] * 1e9)
    assert found["decode_share"] == pytest.approx(needed / step)
    assert found["flop_utilisation"] == pytest.approx(found["update_tflops"] / found["matmul_tflops"])


def numbers_of(shape: gpu.Shape) -> tuple[int, int]:
    """(body, head) of a model of this shape."""
    own, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = shape.hidden * (2 * own + 2 * keys + 3 * shape.intermediate)
    return shape.layers * layer, shape.vocab * shape.hidden


def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.strip().splitlines() == ["benchmarks.gpu needs a GPU that torch can use (CUDA); there is none here"]
