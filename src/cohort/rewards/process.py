"""The worker process, seen from the trainer: asked and answered within a time limit, and ended with the trainer."""

from __future__ import annotations

import json
import os
import pickle
import selectors
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cohort.errors import UsageError
from cohort.rewards.calling import Reply, TrainerState
from cohort.rewards.child import LOADING, LOOK, Child, Failed, status
from cohort.rewards.frames import HEADER, CorruptError, content, frame, length
from cohort.rewards.printed import Printed
from cohort.rewards.sending import packed_functions
from cohort.rewards.spec import RewardSpec


class Worker(Child):
    """A process that loads reward functions and calls them; started again when it is asked after it ended.

    Args:
        specs: the reward components.
        printed: takes what they print.
        timeout: seconds that loading a function may take at least.
    """

    def __init__(self, specs: Sequence[RewardSpec], printed: Printed, *, timeout: float) -> None:
        super().__init__("cohort.rewards.worker", printed)
        self.specs, self.timeout = list(specs), timeout
        self._over = False
        own = {spec.name: spec.function for spec in specs if spec.function is not None}
        self._functions = packed_functions(own) if own else None

    def start(self) -> list[Reply]:
        """Load the functions; the interface of each.

        Raises:
            UsageError: one cannot be loaded.
        """
        self.close()
        self.spawn()
        limit = max(self.timeout, LOADING)
        # With the path, for functions of modules that stand next to the user's script.
        what = "rewards given from Python"
        found = []
        try:
            replies = [self.ask({"path": sys.path, "functions": self._functions}, limit)]
            for spec in self.specs:
                if "error" in replies[-1]:
                    break
                what = f"reward '{spec.text or spec.name}'"
                replies.append(self.ask({"load": (spec.text, spec.name)}, limit))
            found = replies[1:]
            problem = replies[-1].get("error")
        except Failed as error:
            file = f"{self.specs[len(found)].text.rpartition(':')[0]} " if ".py:" in what else ""
            ended = (
                f"{file}was not loaded within {limit:g} s" if error.late else f"loading {file}ended in this: {error}"
            )
            problem = f"{what}: {ended}"
            problem += f"; the last that it said:\n{error.said}" if error.said else ""
        if problem is not None:
            self.close()
            raise UsageError(problem)
        return found

    def call(
        self, rewards: Sequence[int], columns: dict[str, bytes], rows: int, state: TrainerState, timeout: float
    ) -> list[Reply]:
        """What functions, by their place in `specs`, give for a batch of pickled columns.

        Raises:
            Failed: there is no reply within `timeout` seconds, the process died, or the reply cannot be read.
        """
        if self._over:
            raise Failed("its process was ended with the run", "")
        if self.process is None or self.process.poll() is not None:
            try:
                self.start()
            except UsageError as error:
                raise Failed(f"its process could not be started again: {error}", "") from error
        message = {
            "rewards": list(rewards),
            "columns": columns,
            "rows": rows,
            "state": asdict(state),
            "timeout": timeout,
        }
        reply = self.ask(message, timeout)
        if isinstance(reply, dict):
            return [reply] * len(rewards)
        return list(reply)

    def end(self) -> None:
        """End the process for good: who calls it from another thread, or waits for it there, fails."""
        self._over = True
        self.close()

    def ask(self, message: dict[str, Any], timeout: float) -> Any:
        """The reply to a message.

        Raises:
            Failed: there is none within `timeout` seconds, the process died, or what came cannot be read.
        """
        try:
            return json.loads(self._exchange(frame(pickle.dumps(message)), time.monotonic() + timeout))
        except TimeoutError:
            self.stop(patience=0.0)
            raise Failed(
                f"no answer within {timeout:g} s (reward_timeout), so its process was ended", self.said(), late=True
            ) from None
        except EOFError:
            code = self.stop()
            raise Failed(f"its process died ({status(code)})", self.said()) from None
        except (CorruptError, ValueError) as error:
            self.stop()
            raise Failed(f"its reply cannot be read ({error}), so its process was ended", self.said()) from None

    def _exchange(self, data: bytes, deadline: float) -> bytes:
        """Write a message and read the reply, both as the pipes allow."""
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        inlet, outlet = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(inlet, False)
        rest, got, size = memoryview(data), bytearray(), -1
        with selectors.DefaultSelector() as ready:
            ready.register(inlet, selectors.EVENT_WRITE)
            ready.register(outlet, selectors.EVENT_READ)
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                events = ready.select(min(left, LOOK))
                for key, _ in events:
                    if key.fd == inlet:
                        try:
                            rest = rest[os.write(inlet, rest[:65536]) :]
                        except BlockingIOError:
                            continue
                        except BrokenPipeError:
                            # What became of it shows in its reply, or in its end.
                            rest = rest[:0]
                        if not rest:
                            ready.unregister(inlet)
                    else:
                        piece = os.read(outlet, 65536)
                        if not piece:
                            raise EOFError
                        got += piece
                if size < 0 and len(got) >= HEADER.size:
                    size = length(bytes(got[: HEADER.size]))
                if 0 <= size <= len(got) - HEADER.size:
                    return content(bytes(got[: HEADER.size]), bytes(got[HEADER.size : HEADER.size + size]))
                if not events and self.process.poll() is not None:
                    raise EOFError
