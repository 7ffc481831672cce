"""A decoding step taken from a model's weights gives the logits that its modules give."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import pytest
import torch

from cohort.engine.base import Sampling
from cohort.engine.native import shared
from cohort.engine.native.attending import decoding
from cohort.engine.native.engine import NativeEngine
from cohort.engine.native.plain import PlainStep
from cohort.engine.native.shared import SharedDecoder
from cohort.policies.causal_lm import CausalLM
from cohort.types import Request
from tests.engine.native.test_shared import orders
from tests.helpers import tiny_policy


def both(
    policy: CausalLM, *, rows: int = 16, kind: shared.Kind = PlainStep, requests: Sequence[Request] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [M + B, V] that follow the contexts of rollouts, and the second token of each: by a kind of step, and through
    the model's modules."""
    requests = [request for request in requests or orders(policy) if request.max_new_tokens > 3][:rows]
    tokens: list[torch.Tensor] = []

    def logits(kind: shared.Kind | None) -> torch.Tensor:
        decoder = SharedDecoder(policy, requests, Sampling(stop_ids=frozenset()), slots=rows, kind=kind)
        with torch.inference_mode(), decoding(decoder) if kind is None else contextlib.nullcontext():
            decoder._admit(rows)
            decoder._arrange()
            for step in range(2):
                if kind is None:
                    tokens.append(decoder.last.clone())
                decoder.last.copy_(tokens[step])
                found = decoder._forward()
                if step == 0:
                    decoder._take(found)
            return torch.cat([torch.stack(list(decoder.prefixes.following.values())), found])

    right = logits(None)
    return logits(kind), right


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral"])
@pytest.mark.parametrize("rows", [1, 2, 15])
@pytest.mark.parametrize("few", [0, shared.FEW_TOKENS], ids=["shared", "parted"])
def test_logits_agree(kind: str, rows: int, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "FEW_TOKENS", few)
    got, right = both(tiny_policy(kind), rows=rows)
    assert got.shape == right.shape
    assert len(got) > rows
    torch.testing.assert_close(got, right, rtol=1e-5, atol=1e-5)


def test_adapters_and_layers_that_were_taken_over_compute_for_themselves() -> None:
    policy = tiny_policy("qwen2")
    policy.add_lora(4)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    layer = policy.base.base_model.layers[0].mlp.up_proj
    own = layer.forward
    layer.forward = lambda x: 2 * own(x)
    assert NativeEngine(policy).kind is PlainStep
    got, right = both(policy)
    torch.testing.assert_close(got, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_a_model_that_does_more_than_its_class_decodes_through_its_modules(kind: str) -> None:
    policy = tiny_policy(kind)
    assert NativeEngine(policy).kind is not None
    # Something that the weights do not tell.
    policy.base.base_model.layers[1].mlp.register_forward_hook(lambda _, __, out: 1.5 * out)
    assert NativeEngine(policy).kind is None


def test_only_what_was_measured_is_served() -> None:
    assert not PlainStep.serves(tiny_policy("gemma2").base)
    policy = tiny_policy("llama")
    assert PlainStep.serves(policy.base)
    policy.model.bfloat16()
    assert not PlainStep.serves(policy.base)


def test_weights_are_those_of_the_call() -> None:
    policy = tiny_policy("llama")
    both(policy)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.5)
    got, right = both(policy)
    torch.testing.assert_close(got, right, rtol=1e-5, atol=1e-5)
