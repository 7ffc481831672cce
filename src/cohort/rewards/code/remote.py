"""Programs run by a server of SandboxFusion (github.com/bytedance/SandboxFusion), through its `POST /run_code`."""

from __future__ import annotations

import marshal
import threading
import time
from collections.abc import Sequence
from typing import Any

from cohort.errors import UsageError
from cohort.rewards.code.assertions import Call
from cohort.rewards.code.sandbox import MIB, Limits, Ran, inside
from cohort.rewards.code.scripts import Scripted
from cohort.rewards.code.shapes import Suite

# Seconds beyond those of a run that a server may take to answer, tries, and seconds between these.
PATIENCE, TRIES, PAUSE = 10.0, 3, 0.5
# Before what a case of calls told; what else a program prints is passed over.
MARK = "cohort-result:"
_ENDS = {"Finished": "done", "Error": "ended", "TimeLimitExceeded": "time"}


class Remote:
    """A server that runs programs.

    Args:
        url: as http://host:8080.

    Raises:
        UsageError: it is not there, or does not run Python.
    """

    def __init__(self, url: str) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"the server of code rewards is written http://host:port, not {url!r}")
        self.url = url.rstrip("/")
        self._own = threading.local()
        try:
            ran = self.stream("print(6 * 7)", "", Limits())
        except ServerError as error:
            raise UsageError(
                f"the server of code rewards at {self.url} {error}: start it, or correct the address"
            ) from error
        if ran.out.strip() != b"42":
            raise UsageError(f"the server of code rewards at {self.url} does not run Python: it answered {ran}")

    at_once = 16

    def close(self) -> None:
        """Connections are closed with their threads."""

    def stream(self, source: str, given: str, limits: Limits) -> Ran:
        return self._run(source, given, limits)

    def calls(self, source: str, calls: Sequence[Call], limits: Limits) -> Ran:
        ran = self._run(_calling(source, calls), "", limits)
        told = [line[len(MARK) :] for line in ran.out.decode(errors="replace").splitlines() if line.startswith(MARK)]
        return Ran(ran.status, b"", ran.err, "".join(f"{line}\n" for line in told[: len(calls)]).encode())

    def script(self, source: str, program: str, tests: Suite, code: str, limits: Limits) -> Scripted:
        raise NotImplementedError("check() refuses such rows")

    def _run(self, source: str, given: str, limits: Limits) -> Ran:
        asked = {
            "code": source,
            "language": "python",
            "stdin": given,
            "compile_timeout": limits.seconds,
            "run_timeout": limits.seconds,
            "memory_limit_MB": limits.memory // MIB,
        }
        answer = self._posted(asked, limits.seconds + PATIENCE)
        result = answer.get("run_result") or {}
        out = str(result.get("stdout") or "").encode(errors="replace")
        err = str(result.get("stderr") or answer.get("message") or "").encode(errors="replace")
        status = _ENDS.get(str(result.get("status")), "ended")
        if status == "done" and result.get("return_code"):
            status = "ended"
        if status == "ended" and b"MemoryError" in err[-400:]:
            status = "memory"
        if len(out) > limits.output:
            status = "output"
        return Ran(status, out[: limits.output], err[-2000:])

    def _posted(self, asked: dict[str, Any], seconds: float) -> dict[str, Any]:
        import httpx2 as httpx

        client = getattr(self._own, "client", None)
        if client is None:
            client = self._own.client = httpx.Client()
        why = ""
        for number in range(TRIES):
            if number:
                time.sleep(PAUSE * number)
            try:
                response = client.post(f"{self.url}/run_code", json=asked, timeout=seconds)
                answer = response.json() if response.status_code == 200 else None
            except httpx.TimeoutException as error:
                raise ServerError(f"did not answer within {seconds:.0f} s") from error
            except (httpx.HTTPError, ValueError) as error:
                why = f"does not answer ({type(error).__name__}: {error})"
                continue
            if isinstance(answer, dict) and answer.get("status") in ("Success", "Failed"):
                return answer
            said = answer.get("message") if isinstance(answer, dict) else response.text
            why = f"failed (status {response.status_code}: {str(said)[:300]})"
        raise ServerError(why)


class ServerError(RuntimeError):
    """A server did not run a program; the message says what it did instead."""


def _calling(source: str, calls: Sequence[Call]) -> str:
    """A program that runs another one, calls functions of it and prints what they return. What it prints is believed as far
    as the program's own words are."""
    text = inside("wire", "runner").partition('if __name__ == "__main__":')[0]
    return f"{text}\nprinted({source!r}, {marshal.dumps(list(calls), 2)!r}, {MARK!r})\n"
