"""Attention of a packed row in which sequences share what they begin with: computed once, merged exactly.

A row holds, for each prompt, its prefix and then the suffixes of its rollouts; where suffixes share a beginning again, as the
paths of a tree do, that stands there once, and what follows it in a share of its own. Suffix queries meet the keys of their
prefix all at once and without a mask, and the keys of their own suffix causally; the two halves are merged by their
log-sum-exp, as if each sequence had stood alone. Source: arXiv:2506.05433; the merge as in arXiv:2205.14135.

It enters transformers through its registry of attention functions (`AttentionInterface`).
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from cohort.devices import to_device

NAME = "cohort_shared_prefix"
# Scores held at once, in numbers: 8 million are 32 MB in float32.
MOST_SCORES = 8 * 2**20
# Queries of a suffix that meet its keys at once; keys beyond the last of them are not looked at.
QUERY_BLOCK = 256
# Tokens of prefix copies that may be kept for the backward pass, for each token of the suffixes.
COPIED = 2
# Places of a row, from the first on up to before the second.
Range = tuple[int, int]
# Rows and columns [n] int64 of a table.
Places = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Share:
    """A prefix and the suffixes that follow it in a packed row.

    Attributes:
        start: place of the prefix in the row; length: its tokens. The suffixes follow without a gap.
        suffixes: tokens of each suffix.
        before: where the prefix stands in the row instead, in stretches that follow each other; its length here is then 0.
    """

    start: int
    length: int
    suffixes: tuple[int, ...]
    before: tuple[Range, ...] = ()

    @property
    def middle(self) -> int:
        """Place of the first suffix."""
        return self.start + self.length

    @property
    def end(self) -> int:
        """Place after the last suffix."""
        return self.middle + sum(self.suffixes)

    @property
    def seen(self) -> tuple[Range, ...]:
        """The stretches of the row that all suffixes see."""
        return self.before or ((self.start, self.middle),)

    @property
    def depth(self) -> int:
        """Tokens before each suffix."""
        return sum(stop - start for start, stop in self.seen)

    @property
    def alone(self) -> bool:
        """True if a single suffix and its prefix are an ordinary sequence."""
        return len(self.suffixes) == 1 and not self.before


@dataclass(frozen=True)
class Layout:
    """How a packed row is made up.

    Attributes:
        shares: the prefixes with their suffixes, one after the other.
        device: of the row.
    """

    shares: tuple[Share, ...]
    device: torch.device
    _index: dict[int, tuple[Tensor, Places]] = field(default_factory=dict, compare=False, repr=False)

    def positions(self) -> Tensor:
        """[N] position of every token: a suffix goes on where its prefix ends."""
        parts = []
        for share in self.shares:
            parts.append(torch.arange(share.length))
            parts += [torch.arange(share.depth, share.depth + count) for count in share.suffixes]
        return to_device(torch.cat(parts), self.device)

    def suffix_index(self, which: int) -> tuple[Tensor, Places]:
        """(index [G, S], places) of a share's suffix tokens, counted from its first, in padded rows: which token stands where,
        and the rows and columns [n] where the n tokens do. A mask would say the same, but the device would have the host wait
        to count what it holds."""
        if which not in self._index:
            lengths = torch.tensor(self.shares[which].suffixes)
            place = torch.arange(max(1, int(lengths.max())))
            start = lengths.cumsum(0) - lengths
            there = place < lengths[:, None]
            index = torch.where(there, start[:, None] + place, torch.zeros_like(place))
            row, column = there.nonzero().unbind(1)
            index, row, column = (to_device(each, self.device) for each in (index, row, column))
            self._index[which] = index, (row, column)
        return self._index[which]


_layout: contextvars.ContextVar[Layout | None] = contextvars.ContextVar("layout", default=None)


@contextlib.contextmanager
def packed(model: Any, layout: Layout) -> Iterator[None]:
    """Have a transformers model attend in a packed row of this layout."""
    before = model.config._attn_implementation
    token = _layout.set(layout)
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        _layout.reset(token)


def shared_prefix_attention(
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
    """Attention function of transformers' registry: query [1, H, N, D], key and value [1, K, N, D] -> [1, N, H, D]."""
    layout = _layout.get()
    if layout is None or query.shape[0] != 1:
        raise RuntimeError("shared-prefix attention was called outside a packed row")
    if dropout or s_aux is not None:
        raise ValueError("shared-prefix attention knows neither dropout nor attention sinks")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # One block of queries for each key head: those that share it stand side by side.
    heads = key.shape[1]
    q, k, v = query[0].unflatten(0, (heads, -1)), key[0], value[0]
    parts: list[Tensor] = []
    for which, share in enumerate(layout.shares):
        begin, middle, end, length = share.start, share.middle, share.end, share.depth
        longest = length + max(share.suffixes, default=0)
        window = sliding_window if sliding_window is not None and sliding_window < longest else None
        stop = end if share.alone else middle
        if begin < stop:
            parts.append(causal(q[:, :, begin:stop], k[:, begin:stop], v[:, begin:stop], scale, softcap, window))
        if stop == end:
            continue
        k_prefix, v_prefix = (_stretches(x, share.seen) for x in (k, v))
        given = (q[:, :, middle:end], k_prefix, v_prefix, k[:, middle:end], v[:, middle:end])
        if q.device.type == "cpu" and softcap is None and window is None:
            # Copies of a short prefix are kept, and nothing is computed again.
            short = length * len(share.suffixes) <= COPIED * sum(share.suffixes)
            how = (share.suffixes, scale)
            parts += _continue(*given, *how) if short else [_Continued.apply(*given, *how)]
        else:
            parts.append(_suffixes(*given, *layout.suffix_index(which), scale, softcap, window))
    return torch.cat(parts, 2).flatten(0, 1).transpose(0, 1)[None], None


AttentionInterface.register(NAME, shared_prefix_attention)


def _stretches(x: Tensor, ranges: tuple[Range, ...]) -> Tensor:
    """[K, P, D] of the places of a row [K, N, D] in these stretches."""
    parts = [x[:, start:stop] for start, stop in ranges]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def causal(q: Tensor, k: Tensor, v: Tensor, scale: float, softcap: float | None, window: int | None) -> Tensor:
    """[K, R, s, D]: the last s tokens of a sequence attend to all of it, causally: q [K, R, s, D], k and v [K, c, D]."""
    count, length = q.shape[2], k.shape[1]
    window = None if window is not None and window >= length else window
    if softcap is not None or window is not None:
        place = torch.arange(length, device=q.device)
        return _Attend.apply(q, k, v, place[length - count :], place, scale, softcap, window, True)[0]
    if count < length:
        return continued(q, k, v, scale)
    flat = q.flatten(0, 1)[None]
    grouped = flat.shape[1] != k.shape[0]
    out = scaled_dot_product_attention(flat, k[None], v[None], is_causal=True, scale=scale, enable_gqa=grouped)
    return out[0].unflatten(0, q.shape[:2])


def continued(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """[K, R, s, D]: the last s tokens of a sequence attend to all of it, causally: q [K, R, s, D], k and v [K, c, D]."""
    count, length = q.shape[2], k.shape[1]
    seen = torch.ones(count, length, dtype=torch.bool, device=q.device).tril(length - count)
    grouped = q.shape[1] > 1
    out = scaled_dot_product_attention(
        q.flatten(0, 1)[None], k[None], v[None], attn_mask=seen, scale=scale, enable_gqa=grouped
    )
    return out[0].unflatten(0, q.shape[:2])


def _continue(
    q: Tensor, k_prefix: Tensor, v_prefix: Tensor, k: Tensor, v: Tensor, suffixes: tuple[int, ...], scale: float
) -> list[Tensor]:
    """[K, R, s, D] of each suffix after its prefix, by itself in torch's fused kernel, which on a CPU is two to three times as
    fast as the two halves apart and their merge (it keeps no log-sum-exp to merge by). Arguments as of `_suffixes`."""
    parts = zip(*(x.split(suffixes, -2) for x in (q, k, v)), strict=True)
    return [continued(q, torch.cat([k_prefix, k], 1), torch.cat([v_prefix, v], 1), scale) for q, k, v in parts]


class _Continued(torch.autograd.Function):
    """`_continue` for long prefixes: a suffix is joined to the prefix's keys only while it is looked at, and again in the
    backward pass; no copy of the prefix is kept."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k_prefix: Tensor,
        v_prefix: Tensor,
        k: Tensor,
        v: Tensor,
        suffixes: tuple[int, ...],
        scale: float,
    ) -> Tensor:
        ctx.save_for_backward(q, k_prefix, v_prefix, k, v)
        ctx.how = (suffixes, scale)
        return torch.cat(_continue(q, k_prefix, v_prefix, k, v, suffixes, scale), 2)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        q, k_prefix, v_prefix, k, v = ctx.saved_tensors
        suffixes, scale = ctx.how
        length = k_prefix.shape[1]
        dk_prefix, dv_prefix = torch.zeros_like(k_prefix), torch.zeros_like(v_prefix)
        found = []
        for upper, *own in zip(*(x.split(suffixes, -2) for x in (grads[0], q, k, v)), strict=True):
            with torch.enable_grad():
                queries = own[0].detach().requires_grad_()
                keys = torch.cat([k_prefix, own[1]], 1).detach().requires_grad_()
                values = torch.cat([v_prefix, own[2]], 1).detach().requires_grad_()
                again = continued(queries, keys, values, scale)
            dq, dk, dv = torch.autograd.grad(again, (queries, keys, values), upper)
            dk_prefix += dk[:, :length]
            dv_prefix += dv[:, :length]
            found.append((dq, dk[:, length:], dv[:, length:]))
        dq, dk, dv = (torch.cat(parts, -2) for parts in zip(*found, strict=True))
        return dq, dk_prefix, dv_prefix, dk, dv, None, None


def _suffixes(
    q: Tensor,
    k_prefix: Tensor,
    v_prefix: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    places: Places,
    scale: float,
    softcap: float | None,
    window: int | None,
) -> Tensor:
    """[K, R, n, D]: suffix queries against their prefix and, causally, against their own suffix.

    Args:
        q: [K, R, n, D] of all suffixes one after the other; k_prefix, v_prefix: [K, P, D]; k, v: [K, n, D].
        index, places: see Layout.suffix_index.
    """
    heads = q.shape[0]
    count, longest = index.shape
    length = k_prefix.shape[1]
    in_suffix = torch.arange(longest, device=q.device)
    row, column = places
    before = torch.arange(-length, 0, device=q.device)
    first, first_mass = _Attend.apply(q, k_prefix, v_prefix, column, before, scale, softcap, window, False)

    def rows(x: Tensor) -> Tensor:
        """[G K, ..., S, D] of [K, ..., n, D]."""
        return x[..., index.flatten(), :].unflatten(-2, (count, longest)).movedim(-3, 0).flatten(0, 1)

    second, second_mass = _Attend.apply(rows(q), rows(k), rows(v), in_suffix, in_suffix, scale, softcap, window, True)
    second = second.unflatten(0, (count, heads)).permute(1, 2, 0, 3, 4)[:, :, row, column]
    second_mass = second_mass.unflatten(0, (count, heads)).permute(1, 2, 0, 3)[:, :, row, column]
    share = torch.sigmoid(first_mass - second_mass)[..., None]
    return share * first + (1 - share) * second


class _Attend(torch.autograd.Function):
    """Attention with its log-sum-exp, in blocks of queries; scores are recomputed in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_place: Tensor,
        k_place: Tensor,
        scale: float,
        softcap: float | None,
        window: int | None,
        causal: bool,
    ) -> tuple[Tensor, Tensor]:
        """out [B, R, S, D] and mass [B, R, S] (log-sum-exp of the scores) of q [B, R, S, D] and k, v [B, c, D].

        Args:
            q_place: [S], k_place: [c]: positions of queries and keys, for window and causality.
            causal: the last S keys stand at the places of the queries, and later ones are not seen.
        """
        out, mass = torch.empty_like(q), q.new_empty(q.shape[:3])
        for rows, keys in _blocks(q, k, causal):
            scores, _ = _scores(q, k, q_place, k_place, rows, keys, scale, softcap, window, causal)
            total = scores.logsumexp(-1)
            # A query that sees no key of this part takes no share of it.
            weight = (scores - total.nan_to_num(neginf=0.0)[..., None]).exp()
            out[:, :, rows] = torch.bmm(weight.flatten(1, 2), v[:, keys]).view_as(out[:, :, rows])
            mass[:, :, rows] = total
        ctx.save_for_backward(q, k, v, q_place, k_place, out, mass)
        ctx.how = (scale, softcap, window, causal)
        return out, mass

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        q, k, v, q_place, k_place, out, mass = ctx.saved_tensors
        scale, softcap, window, causal = ctx.how
        grad_out, grad_mass = grads
        inner = grad_mass - (grad_out * out).sum(-1)
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for rows, keys in _blocks(q, k, causal):
            scores, slope = _scores(q, k, q_place, k_place, rows, keys, scale, softcap, window, causal)
            weight = (scores - mass[:, :, rows].nan_to_num(neginf=0.0)[..., None]).exp()
            upper = grad_out[:, :, rows].flatten(1, 2)
            lower = torch.bmm(upper, v[:, keys].transpose(1, 2)).view_as(weight)
            lower = weight * (lower + inner[:, :, rows][..., None])
            lower = (lower if slope is None else lower * slope).flatten(1, 2) * scale
            dq[:, :, rows] = torch.bmm(lower, k[:, keys]).view_as(dq[:, :, rows])
            dk[:, keys] += torch.bmm(lower.transpose(1, 2), q[:, :, rows].flatten(1, 2))
            dv[:, keys] += torch.bmm(weight.flatten(1, 2).transpose(1, 2), upper)
        return dq, dk, dv, None, None, None, None, None, None


def _blocks(q: Tensor, k: Tensor, causal: bool) -> Iterator[tuple[slice, slice]]:
    """(queries, the keys that they may see) of blocks that keep the scores small."""
    batch, repeats, count, _ = q.shape
    keys = k.shape[1]
    size = max(1, MOST_SCORES // max(1, batch * repeats * keys))
    size = min(size, QUERY_BLOCK) if causal else size
    for start in range(0, count, size):
        stop = min(start + size, count)
        yield slice(start, stop), slice(0, keys - count + stop if causal else keys)


def _scores(
    q: Tensor,
    k: Tensor,
    q_place: Tensor,
    k_place: Tensor,
    rows: slice,
    keys: slice,
    scale: float,
    softcap: float | None,
    window: int | None,
    causal: bool,
) -> tuple[Tensor, Tensor | None]:
    """Scores [B, R, s, c] of a block, -inf where a key is not seen, and the slope of the soft cap."""
    queries = q[:, :, rows]
    scores = torch.bmm(queries.flatten(1, 2), k[:, keys].transpose(1, 2)).view(*queries.shape[:3], -1) * scale
    slope = None
    if softcap is not None:
        squashed = torch.tanh(scores / softcap)
        scores, slope = softcap * squashed, 1 - squashed**2
    if causal or window is not None:
        distance = q_place[rows, None] - k_place[keys]
        hidden = distance < 0
        if window is not None:
            hidden = hidden | (distance >= window)
        scores = scores.masked_fill(hidden, -torch.inf)
    return scores, slope
