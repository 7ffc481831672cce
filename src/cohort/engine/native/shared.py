"""Continuous batching over shared prefixes, through transformers' registry of attention functions."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from cohort.devices import to_device
from cohort.engine.base import Completion, Sampling
from cohort.engine.native.attending import decoding
from cohort.engine.native.budget import blocks, rows_within
from cohort.engine.native.drawing import Drawing
from cohort.engine.native.flash import Flash
from cohort.engine.native.fused import FusedStep
from cohort.engine.native.graphs import Graphs, Steps
from cohort.engine.native.grid import Grid
from cohort.engine.native.keeping import Kept, Row, behind
from cohort.engine.native.plain import PlainStep
from cohort.engine.native.prefixes import Prefixes
from cohort.engine.native.reading import LINE, ModelReader, Reader
from cohort.policies.causal_lm import CausalLM
from cohort.policies.head import head_of
from cohort.types import Request

# Own tokens that steps of a fixed shape begin with room for.
FIRST_ROOM = 256
# Tokens of contexts up to which the last rows are better off with a copy each than with two products (measured).
FEW_TOKENS = 1024

# What takes a decoding step from a model's weights; the first that serves it is the fastest.
Kind = type[FusedStep] | type[PlainStep]
KINDS: tuple[Kind, ...] = (FusedStep, PlainStep)


class SharedDecoder:
    """Rows of rollouts that are being decoded, and requests that wait for a row.

    Args:
        slots: most rows.
        cache_mb: see `rows_within`.
        kind: what takes steps from the weights rather than through the model's modules; ask `trying.agrees` first.
        graphs: records steps, which then keep their shape as long as they can: rows that end stay until half have ended or
            others come in, and all attend to as many tokens as there is room for.
        flash: attends where it can.
    """

    def __init__(
        self,
        policy: CausalLM,
        requests: Sequence[Request],
        sampling: Sampling,
        *,
        slots: int,
        cache_mb: float | None = None,
        kind: Kind | None = None,
        graphs: Graphs | None = None,
        flash: Flash | None = None,
    ) -> None:
        self.policy, self.sampling = policy, sampling
        # True while further requests may come; asked after every step whether to leave off for a moment.
        self.open = False
        self.stop: Callable[[], bool] | None = None
        self.slots, self.cache_mb = slots, cache_mb
        self.base = policy.base
        self.device = policy.device
        self.head = head_of(policy.model)
        self.drawing = Drawing(policy, (), sampling)
        self.requests: list[Request] = []
        # Of each request: the context that it shares with others, and what stands behind that already, as its own tokens.
        self.contexts: list[tuple[int, ...]] = []
        self.behind: list[tuple[int, ...]] = []
        self.waiting: list[int] = []
        self.rows, self.room, self.most_own, self.most_tokens = 0, 0.0, 0, 0
        # Of each row, in the processor's memory: its request, the tokens drawn so far, and its context's place among the stored
        # ones. Steps read the last two where the model is, and the last token.
        self.owner, self.counts, self.homes = (torch.empty(0, dtype=torch.int64) for _ in range(3))
        self.count, self.home, self.last = (
            to_device(each, self.device) for each in (self.counts, self.homes, self.owner)
        )
        # Whether rows have come or gone since the last step, and how they lie, where a step asks for that.
        self.moved = True
        self.grid: Grid | None = None
        # By layer, keys and values [rows, K, capacity, D] of the rollouts' own tokens.
        self.own: list[tuple[Tensor, Tensor]] = []
        # Own tokens that a step reads of every row (as many as one has drawn, or has room for); whether all have as many.
        self.longest, self.level = 0, True
        self.everyone = self.last
        # Rows that have not ended, in the processor's memory; None if that is all.
        self.live: Tensor | None = None
        self.graphs = graphs
        self.flash = flash if flash is not None and flash.works else None
        self.steps: Steps | None = None
        # What rows read in the step, where that is not their last tokens.
        self.inputs: Tensor | None = None
        # Of the step: what rows do not see, by window.
        self.unseen: dict[int | None, Tensor | None] = {}
        self.stepping = kind(self.base) if kind is not None else None
        self.fused = kind is FusedStep
        self.reader: Reader = (
            self.stepping if isinstance(self.stepping, FusedStep) else ModelReader(self.base, self.head, self.device)
        )
        self.prefixes = Prefixes(self.reader, self.device, tokens_first=self.flash is not None)
        # Of requests that ended, and that others may go on from.
        self.kept = Kept()
        self.add(requests)

    def add(self, requests: Sequence[Request]) -> None:
        """Take further requests; their places follow those of the requests before."""
        self.drawing.add(requests)
        self.waiting += range(len(self.requests), len(self.requests) + len(requests))
        self.requests += requests
        for context, own in behind(requests):
            self.contexts.append(context)
            self.behind.append(own)
        # Requests of one context come together, and contexts of like length, so that little is padding.
        self.waiting.sort(key=lambda i: (len(self.contexts[i]), self.contexts[i], i), reverse=True)
        alive = [*self.owner.tolist(), *self.waiting]
        rows, self.room = rows_within(
            self.policy,
            [self.contexts[i] for i in alive],
            self._own_tokens(alive),
            slots=self.slots,
            cache_mb=self.cache_mb,
            shared=True,
        )
        self.rows = max(rows, self._busy())
        longest = max(len(self.contexts[i]) for i in self.waiting)
        self.most_own = max(self.most_own, self._own_tokens(self.waiting))
        self.most_tokens = max(self.most_tokens, longest + self.most_own)

    def _own_tokens(self, places: Sequence[int]) -> int:
        """Most tokens that there must be room for of one of these requests itself."""
        most = max(len(self.behind[i]) + self.requests[i].max_new_tokens for i in places)
        # Those of the compiled code begin anywhere in a line.
        needed = -(-(most + LINE - 1) // LINE) * LINE if self.fused else most
        return max(blocks(most), needed)

    @property
    def encoded(self) -> int:
        """Tokens that were read so far, those that were drawn not counted."""
        return self.prefixes.read

    def forget(self, place: int) -> None:
        """Nothing goes on any more from a request that has ended."""
        self.kept.drop(place)

    # the loop ------------------------------------------------------------------------------------------------------

    def run(self) -> Iterator[tuple[int, Completion] | None]:
        """(place of the request, completion), as rollouts finish; None where `stop` said so."""
        while self.waiting or self._busy():
            free = self.rows - self._busy()
            some = free == self.rows or free >= max(1, self.rows // 4)
            if self.waiting and free and (some or (self.open and len(self.waiting) <= free)):
                self._sweep()
                yield from self._admit(free)
            done: list[tuple[int, Completion]] = []
            with contextlib.nullcontext() if self.stepping is not None else decoding(self):
                while not done and self._busy():
                    if self.moved:
                        self._arrange()
                    done = self._take(self._forward())
                    if self.stop is not None and self.stop():
                        break
            yield from done
            if not done and self._busy():
                yield None

    def _busy(self) -> int:
        """Rows that have not ended."""
        return len(self.owner) if self.live is None else len(self.live)

    def _admit(self, free: int) -> list[tuple[int, Completion]]:
        """Encode the contexts of waiting requests and draw the first token of each."""
        chosen: list[int] = []
        fresh: dict[tuple[int, ...], int] = {}
        while self.waiting and len(chosen) < free:
            context = self.contexts[self.waiting[-1]]
            if context not in fresh and context not in self.prefixes.contexts:
                # Stored contexts are as wide as the longest of them.
                held = {*self._used(), *(self.contexts[i] for i in chosen), context}
                if len(held) > 1 and len(held) * max(map(len, held)) > self.room:
                    break
                fresh[context] = len(fresh)
            chosen.append(self.waiting.pop())
        if not chosen:
            return []
        needed = self._used() | {self.contexts[i] for i in chosen}
        self.kept.fit(self.slots, self.room, needed)
        place = self.prefixes.keep(needed | self.kept.contexts)
        if place:
            self.homes = torch.tensor([place[i] for i in self.homes.tolist()], dtype=torch.int64)
        self.prefixes.add(list(fresh), self.kept.held(self.prefixes))
        before = len(self.owner)
        self.owner = torch.cat([self.owner, torch.tensor(chosen)])
        self.counts = torch.cat([self.counts, torch.tensor([len(self.behind[i]) for i in chosen])])
        home = [self.prefixes.contexts.index(self.contexts[i]) for i in chosen]
        self.homes = torch.cat([self.homes, torch.tensor(home)])
        self.last = torch.cat([self.last, self.last.new_zeros(len(chosen))])
        self._moved()
        logits = [self.prefixes.following[self.contexts[i]] for i in chosen]
        rows = [self._row(before + at) for at, i in enumerate(chosen) if self.behind[i]]
        if rows:
            self._grow()
            for row, found in zip(rows, self.kept.read(rows, self.own, self.prefixes), strict=True):
                logits[row.row - before] = found
        return self._take(torch.stack(logits), start=before)

    def _row(self, row: int) -> Row:
        """A row with what stands behind its context already."""
        place, count = int(self.owner[row]), int(self.counts[row]) - len(self.behind[int(self.owner[row])])
        drawn = self.drawing.tokens[place, : max(0, count - 1)].tolist()
        return Row(self.contexts[place], (*self.behind[place], *drawn), row, int(self.homes[row]))

    def _moved(self) -> None:
        """Rows have come or gone."""
        self.moved = True
        self.count, self.home = to_device(self.counts, self.device), to_device(self.homes, self.device)

    def _take(self, logits: Tensor, start: int = 0) -> list[tuple[int, Completion]]:
        """Draw the next token of the rows from `start` on, and let go of those that end."""
        rows: slice | Tensor = slice(start, None)
        there = rows
        if self.live is not None:
            rows, there = self.live, to_device(self.live, self.device)
            logits = logits[there]
        owner = self.owner[rows]
        token, ended = self.drawing.step(logits, owner)
        self.counts[rows] += 1
        self.count.copy_(self.counts, non_blocking=True)  # on a CPU they are one
        self.last[there] = token
        if not bool(ended.any()):
            return []
        finished = owner[ended].tolist()
        if self.open:
            self._keep((ended.nonzero()[:, 0] + start if self.live is None else self.live[ended]).tolist())
        if self.graphs is None or self.moved:
            self._leave(ended.nonzero()[:, 0] + start)
        else:
            self.live = (torch.arange(len(self.owner)) if self.live is None else self.live)[~ended]
            if 2 * len(self.live) <= len(self.owner):
                self._sweep()
        return [(place, self.drawing.completion(place)) for place in finished]

    def _keep(self, rows: list[int]) -> None:
        """Keep what rows that end have stored: another request may go on from there."""
        for row in map(self._row, rows):
            # What was read of soft steps is not what their tokens say.
            if row.behind and self.requests[int(self.owner[row.row])].mixer is None:
                self.kept.add(int(self.owner[row.row]), row, self.own, self.prefixes)

    def _sweep(self) -> None:
        """Free the rows that ended and stayed."""
        if self.live is not None:
            gone = torch.ones(len(self.owner), dtype=torch.bool)
            gone[self.live] = False
            self.live = None
            self._leave(gone.nonzero()[:, 0])

    def _leave(self, gone: Tensor) -> None:
        """Free rows: the last rows move to their places."""
        size = len(self.owner) - len(gone)
        staying = torch.ones(len(self.owner), dtype=torch.bool)
        staying[gone] = False
        target = gone[gone < size]
        source = staying[size:].nonzero()[:, 0] + size
        for name in ("owner", "counts", "homes"):
            field = getattr(self, name)
            field[target] = field[source]
            setattr(self, name, field[:size])
        self.last[to_device(target, self.device)] = self.last[to_device(source, self.device)]
        self.last = self.last[:size]
        if self.own:
            # Rows that have just come in may have no room yet: they have nothing to take along.
            held = source < self.own[0][0].shape[0]
            target, source = (to_device(each[held], self.device) for each in (target, source))
        for keys, values in self.own:
            keys[target], values[target] = keys[source], values[source]
        self._moved()

    def _used(self) -> set[tuple[int, ...]]:
        """Contexts of the rows that are being decoded."""
        return {self.prefixes.contexts[i] for i in set(self.homes.tolist())}

    # a step --------------------------------------------------------------------------------------------------------

    def _forward(self) -> Tensor:
        """Logits [B, V] after the last token of every row; the next call may overwrite them."""
        self._grow()
        self.inputs = self.drawing.inputs(self.owner, self.last, self.base.get_input_embeddings())
        if self.graphs is None or self.inputs is not None:
            return self._logits()
        if self.steps is None:
            self.steps = Steps(self.graphs)
        return self.steps(self._logits)

    def _logits(self) -> Tensor:
        """The step itself, which is what can be recorded."""
        self.unseen = {}
        if self.stepping is not None:
            return self.stepping(self)
        given = {"input_ids": self.last[None]} if self.inputs is None else {"inputs_embeds": self.inputs[None]}
        out = self.base.base_model(**given, position_ids=self.positions()[None], use_cache=False)
        return self.head(out.last_hidden_state[0])

    def positions(self) -> Tensor:
        """[B] of the last tokens."""
        return self.prefixes.lengths[self.home] + self.count - 1

    def _grow(self) -> None:
        """Room for one more token of every row."""
        self.longest = int(self.counts.max())
        self.level = self.graphs is None and not self.fused and bool((self.counts == self.longest).all())
        needed = self.longest + LINE - 1 if self.fused else self.longest
        had, capacity = (self.own[0][0].shape[0], self.own[0][0].shape[2]) if self.own else (0, 0)
        rows = had if had and had >= len(self.owner) else max(self.rows, len(self.owner))
        if needed > capacity or rows > had:
            more = max(0, min(blocks(needed), max(self.most_own, needed)) - capacity)
            if self.graphs is not None:
                more = min(max(more, capacity, FIRST_ROOM), self.most_own - capacity)
                self.steps = None
            grown = [self.prefixes.blank(keys[0], rows, capacity + more) for keys, _ in self.prefixes.stacked]
            for whole, held in zip(grown, self.own, strict=bool(self.own)):
                for new, old in zip(whole, held, strict=True):
                    new[:had, :, :capacity] = old
            self.own = grown
        if self.graphs is not None:
            self.longest = self.own[0][0].shape[2]

    def _arrange(self) -> None:
        """After rows have come or gone."""
        self.moved, self.steps = False, None
        self.everyone = torch.arange(len(self.owner), device=self.device)
        if self.fused:
            return
        copies = int(self.prefixes.sizes[self.homes].sum())
        if self.graphs is None and not (self.waiting or self.open) and 0 < copies <= min(FEW_TOKENS, self.room):
            self._part()
        heads = self.prefixes.stacked[0][0].shape[1]
        self.grid = Grid.of(self.homes, len(self.prefixes.contexts), heads, self.device)

    def _part(self) -> None:
        """Have each row hold its context itself, as the first of its own tokens; contexts are empty from then on."""
        self._grow()
        lengths = self.prefixes.sizes[self.homes].tolist()
        capacity = blocks(max(lengths) + self.longest)
        for layer, pairs in enumerate(zip(self.prefixes.stacked, self.own, strict=True)):
            self.own[layer] = self.prefixes.blank(pairs[0][0][0], len(lengths), capacity)
            for rows, stored, own in zip(self.own[layer], *pairs, strict=True):
                for row, (home, length) in enumerate(zip(self.homes.tolist(), lengths, strict=True)):
                    rows[row, :, :length] = stored[home, :, :length]
                    rows[row, :, length : length + self.longest] = own[row, :, : self.longest]
        self.counts = self.counts + self.prefixes.sizes[self.homes]
        self.count = to_device(self.counts, self.device)
        self.prefixes.empty()

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, softcap: float | None, window: int | None
    ) -> Tensor:
        """[B, K, R, D] of q [B, K, R, D] and the rows' new keys and values [B, K, D]."""
        size = len(q)
        own = self.own[layer]
        for stored, new in zip(own, (k, v), strict=True):
            if self.level:
                stored[:size, :, self.longest - 1] = new
            else:
                stored[self.everyone, :, self.count - 1] = new
        dense = functools.partial(self._attend, q, own, self.prefixes.stacked[layer], scale, softcap, window)
        if self.flash is None or not self.flash.serves(q.shape[-1], softcap, self._narrow(window)):
            return dense()
        assert self.grid is not None
        flash = functools.partial(
            self.flash.step, q, own, self.prefixes.stacked[layer], self.grid, self.count, self.prefixes.lengths, scale
        )
        return self.flash(flash, dense)

    def _attend(
        self,
        q: Tensor,
        own: tuple[Tensor, Tensor],
        stacked: tuple[Tensor, Tensor],
        scale: float,
        softcap: float | None,
        window: int | None,
    ) -> Tensor:
        """The same by products of matrices; the new keys and values are stored."""
        assert self.grid is not None
        size, heads, repeats, width = q.shape
        grid = self.grid
        contexts, widest = grid.rows.shape
        own_keys, own_values = (x[:size, :, : self.longest].reshape(size * heads, self.longest, width) for x in own)
        length = stacked[0].shape[2]
        shared_keys, shared_values = (x.reshape(contexts * heads, length, width) for x in stacked)
        q = (q if scale == 1.0 else q * scale).reshape(size * heads, repeats, width)
        near = torch.bmm(q, own_keys.transpose(1, 2))
        if not length:
            weight = self._seen(near.view(size, heads, repeats, -1), softcap, window).softmax(-1).view_as(near)
            return torch.bmm(weight, own_values).view(size, heads, repeats, width)

        # All rows of a context meet it in one product, and each row its own tokens.
        together, apart = (contexts * heads, widest * repeats), (contexts * heads * widest, repeats)
        far = torch.bmm(q.index_select(0, grid.by_context).view(*together, width), shared_keys.transpose(1, 2))
        scores = torch.cat([far, near.index_select(0, grid.by_context).view(*together, -1)], -1)
        self._seen(scores.view(contexts, heads, widest, repeats, -1), softcap, window)
        weight = scores.softmax(-1)
        first = torch.bmm(weight[..., :length], shared_values).view(*apart, width).index_select(0, grid.by_row)
        own_weight = weight[..., length:].view(*apart, -1).index_select(0, grid.by_row)
        return torch.baddbmm(first, own_weight, own_values).view(size, heads, repeats, width)

    def _narrow(self, window: int | None) -> bool:
        """Whether there are tokens that rows do not see."""
        return window is not None and window < int(self.prefixes.stacked[0][0].shape[2]) + self.longest

    def _seen(self, scores: Tensor, softcap: float | None, window: int | None) -> Tensor:
        """Scores with the soft cap, -inf where a row does not see a token; in their place."""
        if softcap is not None:
            scores.div_(softcap).tanh_().mul_(softcap)
        if window not in self.unseen:
            self.unseen[window] = self._hidden(window)
        hidden = self.unseen[window]
        return scores if hidden is None else scores.masked_fill_(hidden, -torch.inf)

    def _hidden(self, window: int | None) -> Tensor | None:
        """Stored and own tokens that rows do not see: bool [M, 1, g, 1, P + t] by context, or, where contexts are empty,
        [B, 1, 1, t]; None if all see all."""
        assert self.grid is not None
        length, most = int(self.prefixes.stacked[0][0].shape[2]), self.longest
        lengths = self.prefixes.lengths[self.home][:, None]
        narrow = self._narrow(window)
        if self.level and not narrow and bool((self.prefixes.sizes == length).all()):
            return None
        far = torch.arange(length, device=self.device)[None]
        near = torch.arange(most, device=self.device)[None]
        count = self.count[:, None]
        hidden_far, hidden_near = (far >= lengths).expand(len(count), -1), near >= count
        if narrow:
            assert window is not None
            now = lengths + count - 1
            hidden_far = hidden_far | (now - far >= window)
            hidden_near = hidden_near | (now - lengths - near >= window)
        hidden = torch.cat([hidden_far, hidden_near], 1)
        return hidden[self.grid.rows][:, None, :, None] if length else hidden[:, None, None]
