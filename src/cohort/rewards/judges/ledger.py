"""What asking models has cost, held within limits; it lives through the run's resumption."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from pathlib import Path

from cohort.errors import UsageError
from cohort.files import write_atomically


class Ledger:
    """Counts calls and tokens. A call is a question that a model was asked; one that it could not be asked is given back.

    Calls never exceed their limit. Tokens are known only once a reply is there: they may exceed theirs by what is in flight.

    Args:
        calls, tokens: limits; None sets none.
    """

    def __init__(self, calls: int | None = None, tokens: int | None = None) -> None:
        self.most_calls, self.most_tokens = calls, tokens
        self.calls = self.tokens = 0
        self._path: Path | None = None
        self._lock = threading.Lock()

    def keep(self, path: Path) -> None:
        """Go on from what a file says was spent, and keep the file up to date from now on.

        Raises:
            UsageError: the file cannot be read, or the budget is spent already.
        """
        try:
            if path.exists():
                stored = json.loads(path.read_text(encoding="utf-8"))
                self.calls, self.tokens = int(stored["calls"]), int(stored["tokens"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path}, which says what judges have cost, cannot be read ({error}): put it back, or delete it to count anew"
            ) from error
        self._path = path
        if self.spent:
            raise UsageError(f"{self.spent}: raise the limit to go on")

    @property
    def spent(self) -> str:
        """Which limit is reached, as a phrase; empty where none is."""
        if self.most_calls is not None and self.calls >= self.most_calls:
            return f"the judges' budget of {self.most_calls} calls (judge_calls) is spent"
        if self.most_tokens is not None and self.tokens >= self.most_tokens:
            return (
                f"the judges' budget of {self.most_tokens} tokens (judge_tokens) is spent: they have cost {self.tokens}"
            )
        return ""

    def begin(self) -> bool:
        """Count a call that is about to be made; False where the budget is spent, so that it must not be."""
        with self._lock:
            if self.spent:
                return False
            self.calls += 1
            return True

    def give_back(self) -> None:
        """A call that was begun could not be made."""
        with self._lock:
            self.calls -= 1

    def book(self, tokens: int) -> None:
        """Count the tokens of a call, read and written."""
        with self._lock:
            self.tokens += tokens

    def metrics(self) -> dict[str, float]:
        """What was spent so far; nothing where no judge was asked."""
        return {"judge/calls": float(self.calls), "judge/tokens": float(self.tokens)} if self.calls else {}

    def write(self) -> None:
        """Bring the file up to date. A disk that is full is told of by who writes more."""
        with self._lock, suppress(OSError):
            if self._path is not None and self._path.parent.is_dir():
                text = json.dumps({"calls": self.calls, "tokens": self.tokens}) + "\n"
                write_atomically(self._path, lambda aside: aside.write_text(text, encoding="utf-8"), durable=False)
