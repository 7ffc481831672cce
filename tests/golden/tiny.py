"""The one-layer transformer that vectors of execution methods give in full, as a model of transformers.

x = embed[id] + pos[position];  h = x + attention(x wq, x wk, x wv) wo;  h = h + tanh(h w1) w2;  logits = h head
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from cohort.policies import head, packing, stream
from cohort.policies.causal_lm import CausalLM
from tests.golden.runner import tensor


class TinyConfig(PreTrainedConfig):
    model_type = "cohort_golden"


class TinyAttention(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config, self.is_causal = config, True
        d = config.hidden_size
        self.wq, self.wk, self.wv, self.wo = (nn.Parameter(torch.empty(d, d)) for _ in range(4))

    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        q, k, v = ((x @ w)[:, None] for w in (self.wq, self.wk, self.wv))
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, None)
        out, _ = attend(self, q, k, v, None, scaling=q.shape[-1] ** -0.5, dropout=0.0, **kwargs)
        return out.flatten(2) @ self.wo


class TinyLayer(GradientCheckpointingLayer):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.attention = TinyAttention(config)
        self.w1 = nn.Parameter(torch.empty(config.hidden_size, config.inner_size))
        self.w2 = nn.Parameter(torch.empty(config.inner_size, config.hidden_size))

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        h = hidden_states + self.attention(hidden_states, **kwargs)
        return h + torch.tanh(h @ self.w1) @ self.w2


class TinyBase(PreTrainedModel):
    config_class = TinyConfig
    _supports_sdpa = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.pos = nn.Embedding(config.positions, config.hidden_size)
        self.layer = TinyLayer(config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Weights are given."""

    def forward(self, input_ids: Tensor, position_ids: Tensor | None = None, **kwargs: Any) -> BaseModelOutput:
        places = torch.arange(input_ids.shape[1]) if position_ids is None else position_ids
        return BaseModelOutput(last_hidden_state=self.layer(self.embed(input_ids) + self.pos(places)))


class TinyLM(PreTrainedModel):
    config_class = TinyConfig
    base_model_prefix = "model"
    _supports_sdpa = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = TinyBase(config)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Weights are given."""

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: Tensor, **kwargs: Any) -> CausalLMOutput:
        return CausalLMOutput(logits=self.head(self.model(input_ids).last_hidden_state))

    def named(self) -> dict[str, Tensor]:
        """The parameters under the vectors' names."""
        layer = self.model.layer
        own = {name: getattr(layer.attention, name) for name in ("wq", "wk", "wv", "wo")}
        own |= {"embed": self.model.embed.weight, "pos": self.model.pos.weight, "w1": layer.w1, "w2": layer.w2}
        return {**own, "head": self.head.weight}


def policy_of(params: dict[str, Any]) -> CausalLM:
    """The model with these weights, in float64."""
    vocab, hidden = len(params["embed"]), len(params["embed"][0])
    config = TinyConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        inner_size=len(params["w1"][0]),
        positions=len(params["pos"]),
        eos_token_id=0,
        attn_implementation="sdpa",
    )
    model = TinyLM(config).double()
    with torch.no_grad():
        for name, parameter in model.named().items():
            value = tensor(params[name])
            parameter.copy_(value.T if name == "head" else value)
    policy = CausalLM(model)
    # The probe that finds this out asks for more tokens than these vocabularies have.
    vars(policy)["forward_mode"] = "shared"
    return policy


def gradients(policy: CausalLM) -> dict[str, Tensor]:
    """What a backward pass left behind, under the vectors' names; it is taken away."""
    out = {}
    for name, parameter in policy.model.named().items():
        grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        out[name] = grad.T.clone() if name == "head" else grad.clone()
        parameter.grad = None
    return out


@contextlib.contextmanager
def in_chunks(policy: CausalLM, activations: str, size: int) -> Iterator[None]:
    """Have passes share prefixes whatever it costs, and layers and output layer work in chunks of `size` tokens."""
    policy.activations = activations
    with (
        patch.object(packing, "SHARE_SECONDS", -1e9),
        patch.object(stream, "CHUNK", size),
        patch.object(head, "MOST_LOGITS", size * policy.vocabulary),
    ):
        yield


def same(found: Sequence[Any]) -> Any:
    """The first of several results, all of which must be equal to rounding."""
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-10, atol=1e-12)
    return found[0]
