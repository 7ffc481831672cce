"""Sequences whose keys and values are known, and what others that begin like them need not have read again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

# By layer keys and values [K, t, D] of the tokens of a sequence.
Layers = Sequence[tuple[Tensor, Tensor]]
# Tokens that a beginning must have to be worth a copy, and a pass that waits for it.
LEAST = 16


class Held(NamedTuple):
    """A sequence of tokens, and their keys and values in parts that follow each other."""

    tokens: tuple[int, ...]
    parts: tuple[Layers, ...]

    def copy(self, start: int, stop: int, into: Layers, at: int) -> None:
        """Write the keys and values of its tokens `start` to `stop` from place `at` on."""
        begin = 0
        for part in self.parts:
            length = part[0][0].shape[1]
            first, last = max(start, begin), min(stop, begin + length)
            if first < last:
                place = slice(at + first - start, at + last - start)
                for pair, target in zip(part, into, strict=True):
                    for x, to in zip(pair, target, strict=True):
                        to[:, place] = x[:, first - begin : last - begin]
            begin += length


class Known(NamedTuple):
    """What of a sequence is known: its first `length` tokens, from `source` (None: nothing is), in wave `wave` of reading."""

    source: int | None
    length: int
    wave: int


def plan(wanted: Sequence[tuple[int, ...]], held: Sequence[tuple[int, ...]]) -> list[Known]:
    """What is known of each wanted sequence: the longest beginning that it has in common with one that is held (source 0,
    1, ...), or with another wanted one (source len(held), ...), which is read in an earlier wave.

    The last token of a sequence is never known: it is read for what follows it.
    """
    rows = [np.array(tokens, dtype=np.int64) for tokens in (*held, *wanted)]
    alike: dict[tuple[int, ...], list[int]] = {}
    for place, tokens in enumerate(held):
        alike.setdefault(tokens[:LEAST], []).append(place)
    out = [Known(None, 0, 0)] * len(wanted)
    # The longest come first, so that one pass serves all that are beginnings of it.
    for i in sorted(range(len(wanted)), key=lambda i: (-len(wanted[i]), i)):
        own, others = rows[len(held) + i], alike.setdefault(wanted[i][:LEAST], [])
        best = max(others, key=lambda place: _common(own, rows[place]), default=None)
        if best is not None and len(wanted[i]) > LEAST:
            count = min(_common(own, rows[best]), len(own) - 1)
            wave = 0 if best < len(held) else out[best - len(held)].wave + 1
            out[i] = Known(best, count, wave)
        others.append(len(held) + i)
    return out


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """Tokens that two sequences have in common, from the first on."""
    length = min(len(a), len(b))
    differ = a[:length] != b[:length]
    first = int(differ.argmax()) if length else 0
    return first if length and differ[first] else length
