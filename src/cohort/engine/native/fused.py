"""A decoding step of the models that are built like Llama, in one call of compiled code (`fused.c`).

For the few dozen rows of a step the products of general libraries run at half the speed that a CPU has, and as much time
again goes between them. Here a product meets the rows as vectors, and what stands between two products is done in passing.
It takes gcc, and a float32 model; for others, steps are taken as in `plain.py`.
"""

from __future__ import annotations

import ctypes
import platform
import sys
import warnings
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_float, c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cohort.engine.native import building
from cohort.engine.native.plain import Layer, Norm, PlainStep, Product, Rows
from cohort.engine.native.reading import LINE, Blank, Caches, Reading, Shared

SOURCE = Path(__file__).with_name("fused.c")
# Tokens of contexts that are read in one call.
COLUMNS = 256
PRODUCTS = ("q", "k", "v", "o", "gate", "up", "down")
# Where it was measured.
MEASURED = ("linux", "x86_64")
# Rotary embeddings whose angles depend on how long the sequences of a pass are.
CHANGING = ("dynamic", "longrope")


# What `fused.c` calls by the same names.
class _Product(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("weight", "bias", "down", "up")),
        *((name, c_int64) for name in ("n", "k", "rank")),
        ("scale", c_float),
    ]


class _Norm(Structure):
    _fields_ = [("weight", c_void_p), ("eps", c_float)]


class _Layer(Structure):
    _fields_ = [
        *((name, _Norm) for name in ("before", "after", "q_norm", "k_norm")),
        *((name, _Product) for name in PRODUCTS),
        ("window", c_int64),
    ]


class _Model(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("embedding", "cos", "sin")),
        ("layers", POINTER(_Layer)),
        ("norm", _Norm),
        ("head", _Product),
        *((name, c_int64) for name in ("count", "hidden", "heads", "key_heads", "width", "inner")),
        ("scale", c_float),
    ]


class _Cache(Structure):
    _fields_ = [(name, c_void_p) for name in ("keys", "values", "shared_keys", "shared_values")]


class _State(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("token", "home", "sequence", "drawn", "lengths", "inputs")),
        ("caches", POINTER(_Cache)),
        *((name, c_void_p) for name in ("logits", "space", "order")),
        *((name, c_int64) for name in ("rows", "contexts", "room", "deep", "shared_room", "shared_deep")),
    ]


def code() -> ctypes.CDLL:
    """The compiled code.

    Raises:
        building.Unavailable: it cannot be had here.
    """
    found = building.library(SOURCE)
    found.step.argtypes = found.space_of.argtypes = [POINTER(_Model), POINTER(_State), c_int64]
    found.step.restype, found.space_of.restype = None, c_int64
    return found


class Unserved(ValueError):
    """A part of a model is not what the compiled code computes."""


def readable(x: Any) -> bool:
    """True if numbers lie as the compiled code reads them."""
    return bool(x.dtype == torch.float32 and x.is_contiguous())


def _norm(norm: Norm) -> _Norm:
    return _Norm(norm.weight.data_ptr(), norm.eps)


def _product(product: Product, n: int, k: int) -> _Product:
    """A linear layer [n, k], or one with a low-rank adapter.

    Raises:
        Unserved: it is something else.
    """
    layer: Any = product.module
    down, up, scale = None, None, 0.0
    if product.weight is None:
        layer, down, up, scale = _adapted(product.module)
    if layer.weight.shape != (n, k) or not all(x is None or readable(x) for x in (layer.weight, layer.bias, down, up)):
        raise Unserved
    weight, bias, first, second = (None if x is None else x.data_ptr() for x in (layer.weight, layer.bias, down, up))
    return _Product(weight, bias, first, second, n, k, 0 if down is None else len(down), scale)


def _adapted(module: Any) -> tuple[Any, Any, Any, float]:
    """(layer, down [rank, k], up [n, rank], scale) of a layer that peft has taken over."""
    layer = getattr(module, "base_layer", None)
    if type(layer) is not nn.Linear or "forward" in vars(layer) or "forward" in vars(module):
        raise Unserved
    names = [name for name in module.active_adapters if name in getattr(module, "lora_A", ())]
    if not names or module.disable_adapters or module.merged:
        return layer, None, None, 0.0
    if len(names) > 1 or names[0] in module.lora_variant or module.lora_B[names[0]].bias is not None:
        raise Unserved
    return layer, module.lora_A[names[0]].weight, module.lora_B[names[0]].weight, module.scaling[names[0]]


class FusedStep:
    """The step of one model; weights are those of the time it is made.

    Args:
        base: a causal language model that `serves` is true of.
    """

    def __init__(self, base: Any) -> None:
        self.parts = parts = PlainStep(base)
        heads, keys, width = parts.heads, parts.key_heads, parts.width
        embedding: Any = parts.embedding
        if type(embedding) is not nn.Embedding or "forward" in vars(embedding) or not readable(embedding.weight):
            raise Unserved
        rows, hidden = embedding.weight.shape
        inner = base.config.intermediate_size
        if width % 2 or heads % keys or base.config.hidden_act != "silu" or parts.rotary.rope_type in CHANGING:
            raise Unserved
        shapes = {
            "q": (heads * width, hidden),
            "k": (keys * width, hidden),
            "v": (keys * width, hidden),
            "o": (hidden, heads * width),
            "gate": (inner, hidden),
            "up": (inner, hidden),
            "down": (hidden, inner),
        }
        self.layers = (_Layer * len(parts.layers))(*(self._layer(layer, shapes) for layer in parts.layers))
        self.caches = (_Cache * len(parts.layers))()
        self.cos = self.sin = torch.empty(0)
        self.model = _Model(
            embedding=embedding.weight.data_ptr(),
            layers=self.layers,
            norm=_norm(parts.norm),
            head=_product(parts.head, rows, hidden),
            count=len(parts.layers),
            hidden=hidden,
            heads=heads,
            key_heads=keys,
            width=width,
            inner=inner,
            scale=float(parts.scale[0]),
        )
        self.code = code()

    @staticmethod
    def serves(base: Any) -> bool:
        """Whether a model may be decoded this way. Where it might, but there is no code, a warning says why."""
        if not PlainStep.serves(base) or (sys.platform, platform.machine()) != MEASURED:
            return False
        try:
            FusedStep(base)
        except Unserved:
            return False
        except building.Unavailable as error:
            warnings.warn(
                f"decoding steps are taken in torch, about half as fast as in code compiled for them: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
            return False
        return True

    def _layer(self, layer: Layer, shapes: dict[str, tuple[int, int]]) -> _Layer:
        if layer.turned is None:
            q_norm = k_norm = _Norm(None, 0.0)
        else:
            q_norm, k_norm = (
                _Norm(layer.turned.weight[place].data_ptr(), layer.turned.eps) for place in (0, self.parts.heads)
            )
        return _Layer(
            before=_norm(layer.before),
            after=_norm(layer.after),
            q_norm=q_norm,
            k_norm=k_norm,
            window=layer.window or 0,
            **{name: _product(getattr(layer, name), *shape) for name, shape in shapes.items()},
        )

    def __call__(self, decoder: Rows) -> Tensor:
        """Logits [B, V] after the last token of every row."""
        logits = torch.empty(len(decoder.last), self.model.head.n, dtype=torch.float32)
        self._turn(decoder.most_tokens)
        where = (decoder.last, decoder.home, decoder.everyone, decoder.count)
        read = None if decoder.inputs is None else decoder.inputs.contiguous()
        self._run(where, decoder.prefixes.lengths, decoder.own, decoder.prefixes.stacked, logits, read)
        return logits

    def begin(self, context: int) -> int:
        """See `Reader`: a token of a sequence has the same lane in its own room as in a context."""
        return context % LINE

    def room(self, rows: int, tokens: int, blank: Blank) -> Caches:
        """See `Reader`."""
        like = torch.empty(self.model.key_heads, 0, self.model.width, dtype=torch.float32)
        return [blank(like, rows, tokens) for _ in self.layers]

    def read(self, readings: Sequence[Reading], own: Caches, shared: Shared) -> Tensor:
        """See `Reader`."""
        lengths = torch.tensor(shared.lengths, dtype=torch.int64)
        self._turn(max(shared.lengths[each.home] + len(each.tokens) for each in readings))
        logits = torch.empty(len(readings), self.model.head.n, dtype=torch.float32)
        # (token, context, sequence, tokens of it up to this one); nothing but keys and values is wanted of those that others
        # follow.
        new = [
            [(each.tokens[at], each.home, each.row, at + 1) for at in range(each.known, len(each.tokens))]
            for each in readings
        ]
        before, last = [row for rows in new for row in rows[:-1]], [rows[-1] for rows in new]
        parts = [before[start : start + COLUMNS] for start in range(0, len(before), COLUMNS)]
        for part, out in (*((part, None) for part in parts), (last, logits)):
            token, home, sequence, count = torch.tensor(part, dtype=torch.int64).t().contiguous()
            self._run((token, home, sequence, count), lengths, own, shared.caches or None, out)
        return logits

    def _run(
        self,
        rows: tuple[Tensor, Tensor, Tensor, Tensor],
        lengths: Tensor,
        own: Caches,
        shared: Caches | None,
        logits: Tensor | None,
        inputs: Tensor | None = None,
    ) -> None:
        """Read the tokens of rows.

        Args:
            rows: [B] int64 each: tokens, contexts, sequences, and the tokens of those up to the row's, itself included.
            lengths: [M] int64 tokens of the contexts.
            own, shared: by layer keys and values of the sequences and of the contexts, if those have any tokens.
            logits: [B, V], written over.
            inputs: [B, d] what is read instead of the tokens.
        """
        for layer, cache in enumerate(self.caches):
            cache.keys, cache.values = (x.data_ptr() for x in own[layer])
            cache.shared_keys, cache.shared_values = (x.data_ptr() for x in shared[layer]) if shared else (None, None)
        count, contexts = len(rows[0]), len(lengths)
        order = torch.empty(2 * count + contexts + 2, dtype=torch.int64)
        token, home, sequence, drawn = (x.data_ptr() for x in rows)
        state = _State(
            token=token,
            home=home,
            sequence=sequence,
            drawn=drawn,
            lengths=lengths.data_ptr(),
            inputs=None if inputs is None else inputs.data_ptr(),
            caches=self.caches,
            logits=None if logits is None else logits.data_ptr(),
            order=order.data_ptr(),
            rows=count,
            contexts=contexts,
            room=own[0][0].stride(3),
            deep=own[0][1].shape[2],
            shared_room=shared[0][0].stride(3) if shared else 0,
            shared_deep=shared[0][1].shape[2] if shared else 0,
        )
        threads = torch.get_num_threads()
        space = torch.empty(self.code.space_of(self.model, state, threads), dtype=torch.float32)
        state.space = space.data_ptr()
        self.code.step(self.model, state, threads)

    def _turn(self, most: int) -> None:
        """Have the cosines and sines of so many positions."""
        if most > len(self.cos):
            positions = torch.arange(most)[None]
            tables = self.parts.rotary(torch.empty(1, dtype=torch.float32), positions)
            self.cos, self.sin = (table[0].contiguous() for table in tables)
            self.model.cos, self.model.sin = self.cos.data_ptr(), self.sin.data_ptr()
