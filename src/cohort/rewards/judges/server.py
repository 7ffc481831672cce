"""An OpenAI-compatible server: vLLM, llama.cpp, a hosted one."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2

from cohort.errors import UsageError
from cohort.rewards.judges.reply import Drawing, Failed, Reply, Unreachable

# Statuses after which the same request may succeed, and those that say so of no request at all.
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
FOR_ALL = frozenset({401, 402, 403, 404, 405})
# Seconds: before the second try, most between two tries, for a connection, and for the list of models.
PAUSE, LONGEST_PAUSE, CONNECT, PROBE = 0.5, 10.0, 10.0, 10.0
# Answers of one question that make no sense, after which it is given up.
NONSENSE = 3
# Characters of what a server says that a message shows.
SHOWN = 300
FORM = "write PROMPT@http://HOST:PORT/v1#MODEL; #MODEL may be left out where the server has one model only"


class Server:
    """A model of a server, spoken to through `/chat/completions`.

    Args:
        address: URL of the interface, with the model's name behind a '#'.
        key: environment variable that holds the server's key. It is sent to the server, and stands nowhere else.
        concurrency: most requests at once.
        timeout: seconds that a question may take, with all its tries.

    Raises:
        UsageError: the address is none.
    """

    def __init__(self, address: str, *, key: str, concurrency: int, timeout: float) -> None:
        try:
            parts = urlsplit(address)
            sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            sound = False
        if not sound:
            raise UsageError(f"judge at {address}: this is no address of a server: {FORM}")
        if parts.username or parts.password or parts.query:
            raise UsageError(
                f"judge at {parts.scheme}://{parts.hostname}: a key belongs into the environment variable {key} (judge_key), "
                "and not into the address, which is written into the run's configuration"
            )
        path = parts.path.rstrip("/").removesuffix("/chat/completions")
        self.url, self.model = f"{parts.scheme}://{parts.netloc}{path or '/v1'}", parts.fragment
        self.place = f"the judge at {self.url}"
        self.key, self.timeout = key, timeout
        self.concurrency = concurrency
        self._slots = asyncio.Semaphore(concurrency)
        self._root = ""
        # Until when, of time.monotonic(), the server has asked to be left alone.
        self._rest_until = 0.0
        self._names = {"tokens": "max_tokens", "temperature": "temperature"}
        self._random = random.Random()
        self._open: httpx2.AsyncClient | None = None
        # Questions that failed since one succeeded.
        self.failed_in_a_row = 0

    @property
    def identity(self) -> str:
        """What replies are known by: address, model and, where the server says so, the weights that it has loaded."""
        return f"{self.url}#{self.model}#{self._root}"

    @property
    def slots(self) -> asyncio.Semaphore:
        return self._slots

    @property
    def _http(self) -> httpx2.AsyncClient:
        if self._open is None:
            limits = httpx2.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
            # How long an answer may take is counted from outside, so that one which trickles in counts too.
            times = httpx2.Timeout(self.timeout, connect=min(CONNECT, self.timeout))
            self._open = httpx2.AsyncClient(timeout=times, limits=limits)
        return self._open

    def _headers(self) -> dict[str, str]:
        key = os.environ.get(self.key)
        return {"Authorization": f"Bearer {key}"} if key else {}

    # before the first question ---------------------------------------------------------------------------------------

    async def check(self, log: Callable[[str], None] = lambda _: None) -> None:
        """The server is there and has the model. One that starts is waited for, which `log` is told.

        Raises:
            UsageError: it is not there in time, wants another key, or has not that model.
        """
        until, pause = time.monotonic() + self.timeout, PAUSE
        while True:
            try:
                # A proxy or a server that is busy may take its time; a whole timeout is never spent on one look.
                async with asyncio.timeout(min(PROBE, self.timeout)):
                    response = await self._http.get(f"{self.url}/models", headers=self._headers())
                if response.status_code not in PASSING:
                    break
                why = f"it answers {response.status_code}: {_said(response)}"
            except TimeoutError:
                why = f"it gave no answer within {min(PROBE, self.timeout):g} s"
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
                why = f"it cannot be reached: {str(error) or type(error).__name__}"
            if time.monotonic() + pause > until:
                raise UsageError(
                    f"{self.place} is not there: {why}. It was tried for {self.timeout:g} s (judge_timeout): start it, or "
                    "mend its address"
                )
            if pause == PAUSE:
                log(f"{self.place}: {why}: waiting for it, {self.timeout:g} s at most (judge_timeout)")
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        if response.status_code in (401, 402, 403):
            raise UsageError(self._refused(response))
        cards = _cards(response)
        named = {card["id"]: card for card in cards if isinstance(card, dict) and isinstance(card.get("id"), str)}
        if not self.model:
            if len(named) != 1:
                held = (
                    f"it has {', '.join(named)}" if named else f"its list of models cannot be read ({_said(response)})"
                )
                raise UsageError(f"{self.place}: which model is to judge? {held}: {FORM}")
            (self.model,) = named
        elif named and self.model not in named:
            raise UsageError(f"{self.place} has no model '{self.model}': it has {', '.join(named)}")
        self._root = str(named.get(self.model, {}).get("root") or "")

    # questions -------------------------------------------------------------------------------------------------------

    async def answer(self, messages: Sequence[dict[str, Any]], drawing: Drawing, *, paid: Callable[[], bool]) -> Reply:
        """The reply to a question, tried again until its time is up.

        Args:
            paid: () -> False if no further call may be made; called for each answer that makes no sense, which costs too.

        Raises:
            Failed: there is none; says what happened.
            Unreachable: there is none to any question.
        """
        until, last, pause, nonsense = time.monotonic() + self.timeout, "", PAUSE, 0
        try:
            async with asyncio.timeout(self.timeout):
                while True:
                    await self._rest(until)
                    try:
                        return await self._try(messages, drawing)
                    except _Nonsense as error:
                        nonsense, last = nonsense + 1, str(error)
                        if nonsense >= NONSENSE or not paid():
                            raise Failed(f"{self.place} {last} ({nonsense} times)", paid=True) from error
                    except _Passing as error:
                        last = str(error)
                    wait = pause * (0.5 + self._random.random())
                    if time.monotonic() + wait > until:
                        raise Failed(f"{self.place} {last}; it was tried for {self.timeout:g} s (judge_timeout)")
                    await asyncio.sleep(wait)
                    pause = min(2 * pause, LONGEST_PAUSE)
        except TimeoutError:
            before = f"; before, it {last}" if last else ""
            raise Failed(f"{self.place} gave no answer within {self.timeout:g} s (judge_timeout){before}") from None

    async def _rest(self, until: float) -> None:
        """Wait as long as the server has asked for."""
        while (left := self._rest_until - time.monotonic()) > 0:
            if self._rest_until > until:
                raise Failed(
                    f"{self.place} asks to be left alone for {left:.0f} s more, which is beyond judge_timeout = "
                    f"{self.timeout:g}: raise that, or lower judge_concurrency"
                )
            # All that waited go on one after the other, not at once.
            await asyncio.sleep(left + 0.2 * self._random.random())

    async def _try(self, messages: Sequence[dict[str, Any]], drawing: Drawing) -> Reply:
        body: dict[str, Any] = {"model": self.model, "messages": list(messages)}
        body |= {
            self._names[k]: v
            for k, v in (("tokens", drawing.tokens), ("temperature", drawing.temperature))
            if self._names[k]
        }
        if drawing.temperature:
            body["seed"] = drawing.sample
        try:
            response = await self._http.post(f"{self.url}/chat/completions", json=body, headers=self._headers())
        except (httpx2.HTTPError, OSError) as error:
            raise _Passing(f"cannot be reached: {str(error) or type(error).__name__}") from error
        status = response.status_code
        if status in PASSING:
            if (seconds := _retry_after(response)) is not None:
                self._rest_until = max(self._rest_until, time.monotonic() + seconds)
            raise _Passing(f"answers {status}: {_said(response)}")
        if status in FOR_ALL:
            raise Unreachable(self._refused(response))
        if response.is_error:
            said = _said(response)
            if status == 400 and self._without(said):
                raise _Passing(f"answers 400: {said}")
            raise Failed(f"{self.place} answers {status}: {said}", passing=False)
        return _reply(response)

    def _without(self, said: str) -> bool:
        """Newer hosted models take another name of the limit, or no temperature: True if that is what the server means."""
        for name in ("tokens", "temperature"):
            used = self._names[name]
            if (
                used
                and used in said
                and any(word in said.lower() for word in ("unsupported", "not supported", "does not support"))
            ):
                self._names[name] = "max_completion_tokens" if used == "max_tokens" else ""
                return True
        return False

    def _refused(self, response: httpx2.Response) -> str:
        status, said = response.status_code, _said(response)
        if status in (401, 403):
            held = "holds a key that it does not take" if os.environ.get(self.key) else "is not set"
            return (
                f"{self.place} refuses ({status}: {said}): the environment variable {self.key} {held}; set it, or name "
                "another with judge_key"
            )
        return f"{self.place} answers {status} for the model '{self.model}': {said}"


class _Passing(Exception):
    """A try failed, and another may succeed."""


class _Nonsense(Exception):
    """An answer that is none, though the server says that all is well."""


def _reply(response: httpx2.Response) -> Reply:
    try:
        body = response.json()
        choice = body["choices"][0]
        content = choice["message"].get("content")
        if isinstance(content, list):
            content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
        if content is not None and not isinstance(content, str):
            raise TypeError(f"a content of type {type(content).__name__}")
        usage = body.get("usage") or {}
        read, written = (max(0, int(usage.get(name) or 0)) for name in ("prompt_tokens", "completion_tokens"))
        return Reply(content or "", read, written, choice.get("finish_reason") != "length")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"[:SHOWN]
        raise _Nonsense(f"gave an answer that is no chat completion ({why}): {_said(response)}") from error


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds that the server asks to wait; None where it does not say so."""
    text = response.headers.get("retry-after", "").strip()
    with suppress(ValueError):
        return max(0.0, float(text))
    with suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return None


def _cards(response: httpx2.Response) -> list[Any]:
    with suppress(ValueError, AttributeError):
        found = response.json().get("data")
        return found if isinstance(found, list) else []
    return []


def _said(response: httpx2.Response) -> str:
    """What the server says, in short."""
    try:
        body = response.json()
        said = body.get("error", body) if isinstance(body, dict) else body
        said = said.get("message") or said.get("detail") or said if isinstance(said, dict) else said
    except ValueError:
        said = response.text
    return " ".join(str(said).split())[:SHOWN] or response.reason_phrase
