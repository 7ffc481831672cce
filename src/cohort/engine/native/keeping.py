"""What is kept of requests that have ended, so that those that go on from them need not have it read again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from cohort.engine.base import context_of
from cohort.engine.native.keys import Held, Known, Layers, plan
from cohort.engine.native.prefixes import Prefixes
from cohort.engine.native.reading import Caches, Reading
from cohort.types import Request

Tokens = tuple[int, ...]


def behind(requests: Sequence[Request]) -> list[tuple[Tokens, Tokens]]:
    """(context that is shared, what stands behind it) of each request.

    What several requests go on from is shared as a whole. A single one, as an episode's next turn is, shares the context with
    others of its group, and has what stands behind it to itself.
    """
    whole = [context_of(request) for request in requests]
    times = Counter(whole)
    out: list[tuple[Tokens, Tokens]] = []
    for request, tokens in zip(requests, whole, strict=True):
        start, context = request.context.at(len(request.prefix))
        own = request.prefix[start:]
        out.append((context.tokens, own) if times[tokens] == 1 and own and context.tokens else (tokens, ()))
    return out


class Row(NamedTuple):
    """A row of own tokens: its context, what stands behind that, where it is stored, and the context among those stored."""

    context: Tokens
    behind: Tokens
    row: int
    home: int

    def held(self, own: Caches, prefixes: Prefixes) -> Held:
        """Both as one sequence whose keys and values are known."""
        begin = prefixes.reader.begin(len(self.context))
        place = slice(begin, begin + len(self.behind))
        stored = [(keys[self.row, :, place], values[self.row, :, place]) for keys, values in own]
        return Held(self.context + self.behind, (*prefixes.held[self.home].parts, stored))


class _Own(NamedTuple):
    """The context of a request; its tokens, that included; keys and values of those behind it."""

    context: Tokens
    tokens: Tokens
    layers: Layers


class Kept:
    """Keys and values of requests by their places, the oldest first; their contexts are stored with others'."""

    def __init__(self) -> None:
        self._own: dict[int, _Own] = {}

    @property
    def contexts(self) -> set[Tokens]:
        """What they follow."""
        return {own.context for own in self._own.values()}

    def add(self, place: int, row: Row, own: Caches, prefixes: Prefixes) -> None:
        """Keep a copy of what a row has behind its context."""
        sequence = row.held(own, prefixes)
        layers = [(keys.clone(), values.clone()) for keys, values in sequence.parts[-1]]
        self._own[place] = _Own(row.context, sequence.tokens, layers)

    def drop(self, place: int) -> None:
        """Keep nothing of a request."""
        self._own.pop(place, None)

    def fit(self, most: int, room: float, needed: set[Tokens]) -> None:
        """Drop the oldest until there are at most so many, and they take at most `room` tokens together with the contexts
        that are needed, which are stored as wide as the longest."""
        while self._own and (len(self._own) > most or self._tokens(needed) > room):
            del self._own[next(iter(self._own))]

    def _tokens(self, needed: set[Tokens]) -> int:
        contexts = needed | self.contexts
        own = sum(len(own.tokens) - len(own.context) for own in self._own.values())
        return own + len(contexts) * max(map(len, contexts))

    def held(self, prefixes: Prefixes) -> list[Held]:
        """What is kept, as sequences whose keys and values are known."""
        contexts = dict(zip(prefixes.contexts, prefixes.held, strict=True))
        return [Held(own.tokens, (*contexts[own.context].parts, own.layers)) for own in self._own.values()]

    def read(self, rows: Sequence[Row], own: Caches, prefixes: Prefixes) -> list[Tensor]:
        """Store what rows have behind their contexts, and give the logits [V] that follow each. What sequences that are kept,
        contexts, or other rows begin with as well is copied."""
        sources = [*self.held(prefixes), *prefixes.held]
        known = plan([row.context + row.behind for row in rows], [each.tokens for each in sources])
        logits: dict[int, Tensor] = {}
        for wave in range(max(each.wave for each in known) + 1):
            places = [i for i, each in enumerate(known) if each.wave == wave]
            readings = []
            for i in places:
                row, (source, count, _) = rows[i], known[i]
                start = len(row.context)
                if source is not None and count > start:
                    mine = source - len(sources)
                    found = sources[source] if mine < 0 else rows[mine].held(own, prefixes)
                    room = [(keys[row.row], values[row.row]) for keys, values in own]
                    found.copy(start, count, room, prefixes.reader.begin(start))
                readings.append(Reading(row.behind, max(0, count - start), row.row, row.home))
            logits.update(zip(places, prefixes.reader.read(readings, own, prefixes.shared), strict=True))
            prefixes.read += sum(len(each.tokens) - each.known for each in readings)
        self._continued(known)
        return [logits[i] for i in range(len(rows))]

    def _continued(self, known: Sequence[Known]) -> None:
        """Drop those that others go on from, as a plan says whose first sources are those of `held`: they are kept again when
        those end."""
        own = dict(enumerate(list(self._own.items())))
        for source, length, _ in known:
            if source in own and length == len(own[source][1].tokens):
                self._own.pop(own[source][0], None)
