"""What reward functions said of completions before, so that the same row and completion is scored once."""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cohort.rewards.calling import Reply

# Completions that are remembered of a function; of more, the oldest are forgotten.
MOST = 65536
# Arguments that a value may depend on beside row and completion, or that are of a call as a whole.
OTHERS = ("trainer_state", "log_metric", "environments")


class Known:
    """The values of one function, and what it logged of each completion, by what it was given."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        # Rollouts that are drawn ahead of training are scored in a thread of their own.
        self._asking = threading.Lock()
        self._said: dict[bytes, tuple[float | None, dict[str, Any]]] = {}
        self._whole = False

    def ask(
        self, given: Mapping[str, Sequence[Any] | None], rows: int, call: Callable[[Sequence[int]], Reply]
    ) -> Reply:
        """The function's reply for a batch, of which it is called on those completions alone that are new.

        What fails is left to the caller. A function that logs metrics is always called on the whole batch, since these are
        means of a call.

        Args:
            given: what it takes: name -> a value a completion.
            call: rows, from 0 -> its reply for these.
        """
        with self._asking:
            return self._ask(given, range(rows), call)

    def _ask(
        self, given: Mapping[str, Sequence[Any] | None], every: range, call: Callable[[Sequence[int]], Reply]
    ) -> Reply:
        if self._whole:
            return call(every)
        try:
            keys = [_key(given, row) for row in every]
        except Exception:  # something that cannot be told from its like
            return call(every)
        said = {key: self._said[key] for key in keys if key in self._said}
        new: dict[bytes, int] = {}
        for row, key in zip(every, keys, strict=True):
            if key not in said:
                new.setdefault(key, row)
        reply: Reply = {"values": [], "extra": {}, "metrics": {}, "notes": []}
        if new:
            reply = call(list(new.values()))
            if reply.get("metrics"):
                self._whole = True
                self._said.clear()
                return reply if len(new) == len(every) else call(every)
            if "values" not in reply:
                return reply
            if reply.get("failed"):
                return reply if len(new) == len(every) else call(every)
        for place, key in enumerate(new):
            extra = {column: values[place] for column, values in reply["extra"].items()}
            said[key] = self._said[key] = (reply["values"][place], extra)
        while len(self._said) > self.most:
            del self._said[next(iter(self._said))]
        columns = dict.fromkeys(column for key in keys for column in said[key][1])
        extra = {column: [said[key][1].get(column) for key in keys] for column in columns}
        return {**reply, "values": [said[key][0] for key in keys], "extra": extra}


def _key(given: Mapping[str, Sequence[Any] | None], row: int) -> bytes:
    """What tells one completion's arguments from all others."""
    values = [(name, None if column is None else column[row]) for name, column in given.items()]
    return hashlib.blake2b(pickle.dumps(values), digest_size=16).digest()
