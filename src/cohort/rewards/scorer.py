"""Rewards of completions, computed in a process of their own."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from cohort.errors import UsageError
from cohort.rewards.spec import RewardSpec
from cohort.rewards.worker import read_frame, write_frame

ON_ERROR = ("stop", "zero", "skip")


class RewardError(RuntimeError):
    """A reward function failed; the message names it, the row and what happened, with its traceback."""


@dataclass
class Scores:
    """Values of a batch of completions.

    Attributes:
        components: reward name -> one value a completion; None where the reward does not apply.
        failed: rows that a reward function could not score, which `on_error` says what to do with.
        messages: what went wrong, one message a failure.
    """

    components: dict[str, list[float | None]]
    failed: set[int] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)


class Scorer:
    """Calls reward functions in a worker process, with a timeout.

    Args:
        specs: the reward components.
        timeout: seconds that one function may take for one batch.
        on_error: "stop" raises RewardError; "zero" gives the row 0; "skip" gives it None and reports it as failed.

    Raises:
        UsageError: a reward function cannot be loaded.
    """

    def __init__(self, specs: Sequence[RewardSpec], *, timeout: float = 60.0, on_error: str = "stop") -> None:
        if on_error not in ON_ERROR:
            raise UsageError(f"on_reward_error is '{on_error}', but must be one of {', '.join(ON_ERROR)}")
        self.specs, self.timeout, self.on_error = list(specs), timeout, on_error
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        if self.specs:
            self._start()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the worker."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout, self._stderr):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            self._process = None

    def score(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None,
        columns: Mapping[str, Sequence[Any]],
    ) -> Scores:
        """Every component of every completion.

        Args:
            prompts, completions: texts, or lists of messages.
            completion_ids: token ids, where they are known.
            columns: further columns of the data set, a value a completion.

        Raises:
            RewardError: a function failed and on_error is "stop".
        """
        arguments = {
            "prompts": list(prompts),
            "completions": list(completions),
            "completion_ids": completion_ids,
            **columns,
        }
        scores = Scores({})
        for index, spec in enumerate(self.specs):
            reply = self._call(index, arguments, len(completions))
            if "values" in reply:
                scores.components[spec.name] = reply["values"]
            else:
                scores.components[spec.name] = self._row_by_row(index, arguments, len(completions), reply, scores)
        return scores

    def _row_by_row(
        self, index: int, arguments: dict[str, Any], rows: int, failure: dict[str, Any], scores: Scores
    ) -> list[float | None]:
        """Call a failed function on each row by itself, to find the rows it fails on and to keep the others."""
        name = self.specs[index].name
        values: list[float | None] = []
        culprits = 0
        for row in range(rows):
            alone = {k: [v[row]] if isinstance(v, (list, tuple)) else v for k, v in arguments.items()}
            reply = self._call(index, alone, 1)
            if "values" in reply:
                values += reply["values"]
                continue
            culprits += 1
            where = f"prompt {_short(alone['prompts'][0])}, completion {_short(alone['completions'][0])}"
            message = f"reward '{name}' failed on row {row} ({where}): {reply['error']}\n{reply.get('traceback', '')}"
            if self.on_error == "stop":
                raise RewardError(message.rstrip())
            scores.messages.append(message.rstrip())
            scores.failed.add(row)
            values.append(0.0 if self.on_error == "zero" else None)
        if not culprits:
            message = f"reward '{name}' failed on a batch of {rows}, though on no row by itself: {failure['error']}"
            if self.on_error == "stop":
                raise RewardError(f"{message}\n{failure.get('traceback', '')}".rstrip())
            scores.messages.append(message)
        return values

    # the worker ----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        import dill

        self.close()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cohort.rewards.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        # With the path, for functions of modules that stand next to the user's script.
        write_frame(self._process.stdin, {"path": sys.path, "load": dill.dumps(self.specs, recurse=True)})
        # Importing a user's file may load a model; that is not a call that hangs.
        reply = self._receive(max(self.timeout, 300.0))
        if "error" in reply:
            self.close()
            raise UsageError(reply["error"])

    def _call(self, index: int, arguments: dict[str, Any], rows: int) -> dict[str, Any]:
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        call = {"reward": index, "arguments": arguments, "rows": rows, "timeout": self.timeout}
        with contextlib.suppress(BrokenPipeError):
            write_frame(self._process.stdin, call)
        return self._receive(self.timeout)

    def _receive(self, timeout: float) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout
        ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            said = self._said()
            self.close()
            return {
                "error": f"no answer within {timeout:g} s (reward_timeout), so its process was ended",
                "traceback": said,
            }
        try:
            reply: dict[str, Any] = read_frame(self._process.stdout)
            return reply
        except EOFError:
            code = self._process.wait()
            said = self._said()
            self.close()
            what = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
            return {"error": f"its process died ({what})", "traceback": said}

    def _said(self) -> str:
        """The end of what the worker wrote to standard error."""
        if self._stderr is None:
            return ""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - 2000))
        return self._stderr.read().decode(errors="replace").strip()


def _short(value: Any, most: int = 60) -> str:
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
    text = "" if value is None else str(value)
    return repr(text if len(text) <= most else text[: most - 3] + "...")
