"""A decoding step of the models that are built like Llama, straight from their weights.

The modules of transformers spend more time between their products than in them when a step has a few dozen rows. Here
every row is a column: products are W x with the weights as they lie in memory, and queries and keys are normalised and
rotated together. On a CPU only, and only where a step gives the model's own logits (see `trying.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from transformers import LlamaModel, MistralModel, Qwen2Model, Qwen3Model

# Rows of these pass through the same operations; what is not named here decodes through its own modules.
SERVED = (LlamaModel, MistralModel, Qwen2Model, Qwen3Model)
# Columns that W x takes at once (measured with MKL): fewer cost more, but for a single one.
WIDTH = 16


class Stored(Protocol):
    """What a step needs of stored contexts; see `Prefixes`, which has it.

    Attributes:
        lengths: [M] int64 their tokens.
        stacked: by layer, their keys and values.
    """

    lengths: Tensor
    stacked: list[tuple[Tensor, Tensor]]


class Rows(Protocol):
    """What a step needs of the rows that are being decoded; see `SharedDecoder`, which has it.

    Attributes:
        last, home, count: [B] int64 of each row: its last token, its context, the tokens of its own; everyone: 0 .. B - 1.
        prefixes: the contexts.
        own: by layer, keys and values of the rows' own tokens.
        most_tokens: of a context and what follows it.
        inputs: [B, d] what is read instead of the last tokens; None if nothing is.
    """

    last: Tensor
    home: Tensor
    count: Tensor
    everyone: Tensor
    own: list[tuple[Tensor, Tensor]]
    most_tokens: int
    inputs: Tensor | None

    @property
    def prefixes(self) -> Stored: ...

    def positions(self) -> Tensor:
        """[B] of the last tokens."""
        ...

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, softcap: float | None, window: int | None
    ) -> Tensor:
        """[B, K, R, D] of q [B, K, R, D] and the rows' new keys and values [B, K, D], which are stored."""
        ...


def columns_of(rows: int) -> int:
    """Columns in which so many rows are computed."""
    return rows if rows == 1 else -(-rows // WIDTH) * WIDTH


class Norm(NamedTuple):
    """RMSNorm of arXiv:1910.07467, over n numbers: weight [..., n, 1] times sqrt(n), eps times n."""

    weight: Tensor
    eps: float

    @classmethod
    def of(cls, weight: Tensor, eps: float) -> Norm:
        """Of a weight [..., n]."""
        size = weight.shape[-1]
        return cls((weight * size**0.5)[..., None], eps * size)

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """[..., n, B] of x [..., n, B]; `out` may be x."""
        return torch.mul(x, (x * x).sum(-2, keepdim=True).add_(self.eps).rsqrt_(), out=out).mul_(self.weight)


class Product(NamedTuple):
    """A linear layer, or whatever stands in its place (an adapter, a layer whose `forward` was replaced)."""

    weight: Tensor | None
    bias: Tensor | None
    module: nn.Module

    def __call__(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """[N, B] of x [n, B]."""
        if self.weight is None:
            found: Tensor = self.module(x.t()).t()
            return found if out is None else out.copy_(found)
        return (
            torch.mm(self.weight, x, out=out) if self.bias is None else torch.addmm(self.bias, self.weight, x, out=out)
        )

    def add(self, total: Tensor, x: Tensor) -> Tensor:
        """total [N, B] + the product of x, in its place."""
        return total.add_(self(x)) if self.weight is None or self.bias is not None else total.addmm_(self.weight, x)


class Layer(NamedTuple):
    """What a decoder layer is made of."""

    before: Norm
    q: Product
    k: Product
    v: Product
    o: Product
    turned: Norm | None  # of queries and keys, [H + K, D, 1]
    window: int | None
    after: Norm
    gate: Product
    up: Product
    down: Product
    act: Callable[[Tensor], Tensor]


class PlainStep:
    """The step of one model; weights are those of the time it is made.

    Args:
        base: a causal language model whose backbone is of a class in SERVED.
    """

    def __init__(self, base: Any) -> None:
        config, model = base.config, base.base_model
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.embedding, self.rotary = model.embed_tokens, model.rotary_emb
        self.layers = [self._layer(layer, config) for layer in model.layers]
        self.norm, self.head = _norm(model.norm), _product(base.get_output_embeddings())
        scale = torch.ones(self.heads + self.key_heads, 1, 1, dtype=self.norm.weight.dtype)
        scale[: self.heads] = model.layers[0].self_attn.scaling
        self.scale = scale

    @staticmethod
    def serves(base: Any) -> bool:
        """Whether a model may be decoded this way."""
        first, model = next(base.parameters()), base.base_model
        if type(model) not in SERVED or first.device.type != "cpu" or first.dtype not in (torch.float32, torch.float64):
            return False
        norms = [
            model.norm,
            *(n for layer in model.layers for n in (layer.input_layernorm, layer.post_attention_layernorm)),
        ]
        return all(hasattr(norm, "variance_epsilon") for norm in norms)

    def _layer(self, layer: Any, config: Any) -> Layer:
        attention, mlp = layer.self_attn, layer.mlp
        turned = None
        if hasattr(attention, "q_norm"):
            weights = [
                norm.weight.expand(count, -1)
                for norm, count in ((attention.q_norm, self.heads), (attention.k_norm, self.key_heads))
            ]
            turned = Norm.of(torch.cat(weights), attention.q_norm.variance_epsilon)
        windowed = attention if hasattr(attention, "sliding_window") else config
        window = getattr(windowed, "sliding_window", None)
        q, k, v, o = map(_product, (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj))
        gate, up, down = map(_product, (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        before, after = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        return Layer(before, q, k, v, o, turned, window, after, gate, up, down, mlp.act_fn)

    def __call__(self, decoder: Rows) -> Tensor:
        """Logits [B, V] after the last token of every row."""
        tokens, positions = decoder.last, decoder.positions()
        rows, heads, keys, width = len(tokens), self.heads, self.key_heads, self.width
        columns = columns_of(rows)
        if columns > rows:
            tokens, positions = (nn.functional.pad(x, (0, columns - rows)) for x in (tokens, positions))
        embedded = self.embedding(tokens)
        if decoder.inputs is not None:
            embedded = nn.functional.pad(decoder.inputs, (0, 0, 0, columns - rows))
        x = embedded.t().contiguous()
        # Queries, keys and values of a layer lie in one block and are turned in one go: queries are scaled with it, and values
        # turned by nothing.
        block = x.new_empty(heads + 2 * keys, width, columns)
        cos, sin, spun = torch.ones_like(block), torch.zeros_like(block), torch.empty_like(block)
        for table, part in zip((cos, sin), self.rotary(embedded, positions[None]), strict=True):
            torch.mul(part[0].t(), self.scale, out=table[: heads + keys])
        low, high = slice(0, width // 2), slice(width // 2, width)
        sin[:, low].neg_()
        turns = [(spun[:, a], block[:, b], sin[:, a]) for a, b in ((low, high), (high, low))]
        q, k, v = block.view(-1, columns).split([heads * width, keys * width, keys * width])
        to_norm = block[: heads + keys]
        by_row = x.new_empty(columns, heads + 2 * keys, width)
        own, own_keys, own_values = by_row[:rows].split([heads, keys, keys], 1)
        own = own.unflatten(1, (keys, -1))
        seen = x.new_zeros(heads * width, columns)
        seen_rows = seen.t()[:rows]
        for place, layer in enumerate(self.layers):
            y = layer.before(x)
            layer.q(y, out=q)
            layer.k(y, out=k)
            layer.v(y, out=v)
            if layer.turned is not None:
                layer.turned(to_norm, out=to_norm)
            torch.mul(block, cos, out=spun)
            for half, other, weight in turns:
                half.addcmul_(other, weight)
            by_row.copy_(spun.permute(2, 0, 1))
            attended = decoder.attend(place, own, own_keys, own_values, 1.0, None, layer.window)
            seen_rows.copy_(attended.view(rows, -1))
            x = layer.o.add(x, seen)
            y = layer.after(x)
            gate = layer.act(layer.gate(y))
            x = layer.down.add(x, gate.mul_(layer.up(y)))
        return self.head(self.norm(x))[:, :rows].t()


def _norm(module: Any) -> Norm:
    return Norm.of(module.weight, module.variance_epsilon)


def _product(module: nn.Module) -> Product:
    # A layer that something else has taken over (an adapter, hooks of accelerate) computes for itself.
    if type(module) is not nn.Linear or "forward" in vars(module):
        return Product(None, None, module)
    return Product(module.weight, None if module.bias is None else module.bias[:, None], module)
