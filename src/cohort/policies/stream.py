"""The backward pass of a decoder layer in chunks of the row, exact: activations are held for one chunk at a time.

A layer keeps its input alone. When its gradient is taken, keys and values of the whole row are made again, and then, from
the last chunk to the first, everything else of a chunk: queries, attention to the keys before it and its own, feed-forward.
A key is seen by its own chunk and later ones only, so the gradient of a chunk's keys is complete when its turn comes, and
goes back through the layer together with that of its output. Source: arXiv:2506.03077 (the form that holds keys and values);
a row may hold shared prefixes (attention.py).

A chunk is computed by the layer's own forward function; the attention function, which transformers takes from its
registry, adds what the chunk sees of the rest of the row. A layer that mixes positions elsewhere cannot be served.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from cohort.policies.activations import layers_of, replaced
from cohort.policies.attention import Layout, Range, _suffixes, causal, packed
from cohort.policies.chunks import Chunk, Piece, cut
from cohort.policies.packing import pack
from cohort.policies.sequences import Sequences

NAME = "cohort_stream"
# Tokens of a chunk: few enough that a layer's activations are small beside its weights, enough to keep a processor busy.
CHUNK = 1024


class _Enough(Exception):
    """Keys and values of a chunk have been made, and nothing else of it is wanted."""


@dataclass
class _Work:
    """A layer's pass over a row.

    Attributes:
        total: tokens of the row.
        chunk: the one in hand.
        keys, values: [K, N, D] of the chunks so far, without gradient.
        own: keys and values [K, n, D] of the chunk in hand, with the gradient that is on.
        leaves: stretch before the chunk -> its keys and values as leaves, whose gradients are asked for.
        keys_only: stop as soon as keys and values are there.
    """

    total: int
    chunk: Chunk
    keys: Tensor | None = None
    values: Tensor | None = None
    own: tuple[Tensor, Tensor] | None = None
    leaves: dict[Range, tuple[Tensor, Tensor]] = field(default_factory=dict)
    keys_only: bool = False

    def take(self, k: Tensor, v: Tensor) -> None:
        """Note keys and values of the chunk in hand."""
        start, stop = self.chunk.start, self.chunk.stop
        if k.shape[1] != stop - start:
            raise ValueError("the layer makes keys of other tokens than those of its chunk")
        if self.keys is None or self.values is None:
            self.keys = k.new_empty(k.shape[0], self.total, k.shape[2])
            self.values = v.new_empty(v.shape[0], self.total, v.shape[2])
        self.keys[:, start:stop] = k.detach()
        self.values[:, start:stop] = v.detach()
        self.own = (k, v)
        self.leaves = {
            (a, b): (
                self.keys[:, a:b].detach().requires_grad_(k.requires_grad),
                self.values[:, a:b].detach().requires_grad_(v.requires_grad),
            )
            for a, b in self.chunk.rest
        }

    def seen(self, piece: Piece, most: int | None) -> tuple[Tensor, Tensor]:
        """Keys and values [K, P, D] of the sequence before a piece, of its last `most` tokens."""
        assert self.own is not None
        start = self.chunk.start
        parts: list[tuple[Tensor, Tensor]] = []
        for a, b in piece.seen:
            if a < start:
                parts.append(self.leaves[a, min(b, start)])
            if b > start:
                inside = slice(max(a, start) - start, b - start)
                parts.append((self.own[0][:, inside], self.own[1][:, inside]))
        if most is not None:
            parts = _last(parts, most)
        return _joined([k for k, _ in parts]), _joined([v for _, v in parts])


def _last(parts: list[tuple[Tensor, Tensor]], most: int) -> list[tuple[Tensor, Tensor]]:
    """The last `most` tokens of keys and values; at least one, so that there is something."""
    out: list[tuple[Tensor, Tensor]] = []
    room = max(1, most)
    for k, v in reversed(parts):
        if room > 0:
            out.insert(0, (k[:, -room:], v[:, -room:]))
            room -= k.shape[1]
    return out


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


_work: contextvars.ContextVar[_Work | None] = contextvars.ContextVar("work", default=None)


def stream_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention function of transformers' registry, for a chunk of a row: query [1, H, n, D], key and value [1, K, n, D]
    of the chunk -> [1, n, H, D]."""
    work = _work.get()
    if work is None or query.shape[0] != 1:
        raise RuntimeError("chunked attention was called outside a chunk of a packed row")
    if dropout or s_aux is not None:
        raise ValueError("chunked attention knows neither dropout nor attention sinks")
    work.take(key[0], value[0])
    if work.keys_only:
        raise _Enough
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # One block of queries for each key head: those that share it stand side by side.
    q = query[0].unflatten(0, (key.shape[1], -1))
    parts = []
    for piece in work.chunk.pieces:
        inside = slice(piece.start - work.chunk.start, piece.start - work.chunk.start + piece.length)
        own_q, k, v = q[:, :, inside], key[0][:, inside], value[0][:, inside]
        longest = sum(b - a for a, b in piece.seen) + max(piece.suffixes)
        window = sliding_window if sliding_window is not None and sliding_window < longest else None
        if not piece.seen:
            parts.append(causal(own_q, k, v, scale, softcap, window))
            continue
        # The first query sees one token fewer before itself than the window holds.
        before = work.seen(piece, None if window is None else window - 1)
        if len(piece.suffixes) == 1 and softcap is None:
            parts.append(_continued(own_q, *before, k, v, scale, window))
        else:
            parts.append(_suffixes(own_q, *before, k, v, *piece.grid.suffix_index(0), scale, softcap, window))
    return torch.cat(parts, 2).flatten(0, 1).transpose(0, 1)[None], None


def _continued(
    q: Tensor, k_before: Tensor, v_before: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None
) -> Tensor:
    """Causal attention [K, R, n, D] of a stretch of one sequence to what comes before it, [K, P, D], and to itself."""
    count, total = q.shape[2], k_before.shape[1] + k.shape[1]
    seen: Tensor = causal_lower_right(count, total)
    if window is not None:
        seen = (
            torch.ones(count, total, dtype=torch.bool, device=q.device)
            .tril(total - count)
            .triu(total - count - window + 1)
        )
    keys, values = torch.cat([k_before, k], 1)[None], torch.cat([v_before, v], 1)[None]
    flat = q.flatten(0, 1)[None]
    grouped = flat.shape[1] != k.shape[0]
    out = scaled_dot_product_attention(flat, keys, values, attn_mask=seen, scale=scale, enable_gqa=grouped)
    attended: Tensor = out[0].unflatten(0, q.shape[:2])
    return attended


AttentionInterface.register(NAME, stream_attention)


@contextlib.contextmanager
def _attending(base: Any) -> Iterator[None]:
    before = base.config._attn_implementation
    base.set_attn_implementation(NAME)
    try:
        yield
    finally:
        base.set_attn_implementation(before)


@contextlib.contextmanager
def streamed(base: Any, layout: Layout, *, size: int | None = None) -> Iterator[None]:
    """Have the layers of a transformers model compute a packed row of this layout in chunks, forward and backward.

    Args:
        size: tokens of a chunk; CHUNK if None.

    Raises:
        TypeError: on the pass, where a layer cannot be computed so.
    """
    chunks = cut(layout, size or CHUNK)

    def wrap(layer: nn.Module, inner: Callable[..., Any]) -> Callable[..., Any]:
        def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            # Those of now: a layer whose parameters are in parts on several ranks has whole ones only while it is called.
            params = [p for p in layer.parameters() if p.requires_grad]
            run = _Run(base, inner, params, chunks, hidden_states.shape[1], args, kwargs)
            if not torch.is_grad_enabled():
                return run.forward(hidden_states)
            if any(x.requires_grad for x in _tensors((args, kwargs))):
                raise TypeError(f"{type(layer).__name__} takes a gradient to more than its hidden states")
            out: Tensor = _Streamed.apply(run, hidden_states, *params)  # type: ignore[no-untyped-call]
            return out

        return forward

    with _attending(base), replaced(base, wrap):
        yield


@dataclass
class _Run:
    """A layer's call on a row.

    Attributes:
        inner: the layer's own forward function; args, kwargs: what it is given beside the hidden states.
        params: the layer's parameters that are trained.
        total: N, tokens of the row.
    """

    base: Any
    inner: Callable[..., Any]
    params: list[nn.Parameter]
    chunks: list[Chunk]
    total: int
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def begin(self) -> _Work:
        return _Work(self.total, self.chunks[0])

    def part(self, given: Any, chunk: Chunk) -> Any:
        """What the layer is given, for a chunk: tensors [1, N, ...] are cut."""
        if isinstance(given, Tensor):
            whole = given.ndim < 2 or given.shape[:2] != (1, self.total)
            return given if whole else given[:, chunk.start : chunk.stop]
        if isinstance(given, (tuple, list)):
            return type(given)(self.part(each, chunk) for each in given)
        if isinstance(given, dict):
            return {name: self.part(each, chunk) for name, each in given.items()}
        return given

    def __call__(self, work: _Work, chunk: Chunk, hidden: Tensor) -> Tensor:
        """Output [1, n, d] of a chunk from its hidden states [1, n, d]."""
        work.chunk = chunk
        token = _work.set(work)
        try:
            out = self.inner(hidden, *self.part(self.args, chunk), **self.part(self.kwargs, chunk))
        finally:
            _work.reset(token)
        if not isinstance(out, Tensor) or out.shape[:2] != hidden.shape[:2]:
            raise TypeError("a layer that gives more than its hidden states cannot be computed in chunks")
        return out

    def keys(self, work: _Work, hidden: Tensor) -> None:
        """Make keys and values of all chunks but the last, whose turn comes first."""
        work.keys_only = True
        for chunk in self.chunks[:-1]:
            with contextlib.suppress(_Enough):
                self(work, chunk, hidden[:, chunk.start : chunk.stop])
        work.keys_only = False

    def forward(self, hidden: Tensor) -> Tensor:
        """Output [1, N, d] from hidden states [1, N, d], without a gradient."""
        if not self.chunks:
            return hidden
        work = self.begin()
        out: Tensor | None = None
        for chunk in self.chunks:
            part = self(work, chunk, hidden[:, chunk.start : chunk.stop])
            out = part.new_empty(1, self.total, *part.shape[2:]) if out is None else out
            out[:, chunk.start : chunk.stop] = part
        assert out is not None
        return out


def _tensors(given: Any) -> Iterator[Tensor]:
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, (tuple, list)):
        for each in given:
            yield from _tensors(each)
    elif isinstance(given, dict):
        yield from _tensors(list(given.values()))


def _sum_like(x: Tensor) -> Tensor:
    """Zeros to add gradients up in: many small ones would be lost in half precision."""
    return torch.zeros_like(x, dtype=torch.float32 if x.dtype in (torch.bfloat16, torch.float16) else x.dtype)


class _Streamed(torch.autograd.Function):
    """A layer over a row: hidden states [1, N, d] and the layer's trained parameters -> hidden states."""

    @staticmethod
    def forward(ctx: Any, run: _Run, hidden: Tensor, *params: Tensor) -> Tensor:
        ctx.run = run
        # The parameters are saved so that a change of them before the backward pass is noticed.
        ctx.save_for_backward(hidden, *params)
        return run.forward(hidden)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        run: _Run = ctx.run
        hidden: Tensor = ctx.saved_tensors[0]
        to_hidden: bool = ctx.needs_input_grad[1]
        wanted = [p for p, asked in zip(run.params, ctx.needs_input_grad[2:], strict=True) if asked]
        sums = [_sum_like(p) for p in wanted]
        d_hidden = torch.empty_like(hidden) if to_hidden else None
        d_keys: Tensor | None = None
        d_values: Tensor | None = None
        work = run.begin()
        with _attending(run.base):
            run.keys(work, hidden)
            for chunk in reversed(run.chunks):
                place = slice(chunk.start, chunk.stop)
                x = hidden[:, place].detach().requires_grad_(to_hidden)
                with torch.enable_grad():
                    out = run(work, chunk, x)
                assert work.keys is not None
                assert work.values is not None
                assert work.own is not None
                roots = [(out, grads[0][:, place])]
                if d_keys is not None and d_values is not None:
                    k, v = work.own
                    roots += [(k, d_keys[:, place].to(k.dtype)), (v, d_values[:, place].to(v.dtype))]
                elif chunk.start:
                    d_keys, d_values = _sum_like(work.keys), _sum_like(work.values)
                roots = [(root, upper) for root, upper in roots if root.requires_grad]
                leaves = [
                    (leaf, total[:, a:b])
                    for (a, b), pair in work.leaves.items()
                    for leaf, total in zip(pair, (d_keys, d_values), strict=True)
                    if leaf.requires_grad and total is not None
                ]
                inputs = [*([x] if to_hidden else []), *(leaf for leaf, _ in leaves), *wanted]
                if not roots or not inputs:
                    continue
                got = list(torch.autograd.grad([r for r, _ in roots], inputs, [g for _, g in roots], allow_unused=True))
                if d_hidden is not None:
                    first = got.pop(0)
                    d_hidden[:, place] = 0.0 if first is None else first
                for total, add in zip([*(total for _, total in leaves), *sums], got, strict=True):
                    if add is not None:
                        total += add
                work.own, work.leaves = None, {}
        found = iter(total.to(p.dtype) for total, p in zip(sums, wanted, strict=True))
        return None, d_hidden, *(next(found) if asked else None for asked in ctx.needs_input_grad[2:])


def serves(policy: Any) -> bool:
    """True if the layers of a CausalLM can be computed in chunks, found by trying on a few tokens: hidden states, and the
    gradient of the first layer, which passes through all others."""
    layers = layers_of(policy.base)
    if policy.forward_mode != "shared" or not layers:
        return False
    tokens = torch.arange(2, 8)
    # Every kind of border falls into a row of chunks of 3: within a prompt, a rollout, and between them.
    probe = Sequences((tokens[:5], tokens[:5], tokens[2:5]), (tokens[1:5], tokens[2:5], tokens[:3]))
    row = pack(probe, policy.device)
    params = [p for p in layers[0].parameters() if p.requires_grad]
    found = []
    for how in (packed(policy.base, row.layout), streamed(policy.base, row.layout, size=3)):
        try:
            with torch.enable_grad(), how:
                out = policy.base.base_model(
                    input_ids=row.ids[None], position_ids=row.layout.positions()[None], use_cache=False
                )
            hidden = out.last_hidden_state[0]
            weight = torch.linspace(-1.0, 1.0, hidden.numel(), device=hidden.device).view_as(hidden).to(hidden.dtype)
            grads = torch.autograd.grad((hidden * weight).sum(), params, allow_unused=True, materialize_grads=True)
        except (AttributeError, TypeError, ValueError, RuntimeError, KeyError):
            return False
        found.append([hidden.detach(), *grads])
    near = {torch.float64: 1e-6, torch.float32: 1e-3}.get(policy.dtype, 0.05)
    return all(float((a - b).abs().max()) <= near * (1.0 + float(a.abs().max())) for a, b in zip(*found, strict=True))
