"""Stop strings: texts that end a rollout with the token that completes them."""

from __future__ import annotations

from collections.abc import Sequence

from cohort.types.policy import Renderer

# Of a character whose last bytes have not come yet.
UNFINISHED = "\N{REPLACEMENT CHARACTER}"
# Tokens before those that can hold a stop string: some tokenizers write the first token of a text differently.
MARGIN = 4


def first_stop(text: str, before: str, stops: Sequence[str]) -> tuple[int, str] | None:
    """(place, stop string) of the first stop string in `text` that was not yet whole in `before`, its beginning."""
    known = len(before.rstrip(UNFINISHED))
    found = [(at, stop) for stop in stops if (at := text.find(stop, max(0, known - len(stop) + 1))) >= 0]
    return min(found, default=None)


class StopStrings:
    """Looks for stop strings in the text of each request's drawn tokens, a token at a time.

    Attributes:
        found: the stop string that ended each request; None if none did yet.
    """

    def __init__(self, renderer: Renderer, stops: Sequence[str], requests: int = 0) -> None:
        self.renderer, self.stops = renderer, tuple(stops)
        self.special = renderer.special_ids
        # A token other than a special one stands for at least one byte.
        self.window = max(len(stop.encode()) for stop in stops) + MARGIN
        self.tails: list[list[int]] = []
        self.found: list[str | None] = []
        self.add_requests(requests)

    def add_requests(self, count: int) -> None:
        """Look in the texts of further requests too."""
        self.tails += [[] for _ in range(count)]
        self.found += [None] * count

    def add(self, place: int, token: int, ends: bool) -> bool:
        """True if the next token of a request completes a stop string; never if not `ends`."""
        tail = self.tails[place]
        if token in self.special:
            return False
        tail.append(token)
        del tail[: -self.window]
        if not ends:
            return False
        text = self.renderer.decode(tail)
        if not any(stop in text for stop in self.stops):
            return False
        found = first_stop(text, self.renderer.decode(tail[:-1]), self.stops)
        self.found[place] = found[1] if found else None
        return found is not None
