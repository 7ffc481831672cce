"""A vLLM server, spoken to over HTTP.

Draws through `/v1/completions` with token ids in and out (`return_token_ids`, vLLM 0.10.2); where truncation is to be
reported, through `/inference/v1/generate`, which gives the sampling mask (vLLM's page training/sampling_mask). Weights go
by `/collective_rpc` with `reload_weights` (page training/layerwise) and `/reset_prefix_cache`, which a server has in its
development mode, adapters by `/v1/load_lora_adapter` (page features/lora).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import httpx2

from cohort.engine.vllm.engine import Answer, Order, drawn
from cohort.engine.vllm.params import plain
from cohort.errors import EngineError, UsageError

# Statuses after which the same request may succeed; those of a proxy before a server that is not there.
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
AWAY = frozenset({502, 503, 504})
# Most seconds between two tries.
LONGEST_PAUSE = 5.0
# Seconds between two looks at whether to wait on.
POLL = 0.02
# Seconds that a server may take to say that it is there.
PROBE = 5.0
START = (
    "VLLM_SERVER_DEV_MODE=1 VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve MODEL --logprobs-mode processed_logprobs"
)


class Refused(EngineError):
    """The server answered, and will answer so again."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Server:
    """A Backend: a vLLM server at a URL.

    Args:
        url: such as http://127.0.0.1:8000.
        concurrency: most requests at once.
        timeout: seconds that an answer may take.
        wait: seconds that a server which cannot be reached is waited for: one that starts, for example, or starts anew.
        log: is told when that begins, and when the server is there.
        masked: it was started with --return-sampling-mask, and what it kept is wanted.
        tries: times that a request is made, in all, to a server that fails it; the pauses between double.
        pause: seconds before the second try.
    """

    def __init__(
        self,
        url: str,
        *,
        concurrency: int = 128,
        timeout: float = 600.0,
        wait: float = 300.0,
        log: Callable[[str], None] = lambda _: None,
        masked: bool = False,
        tries: int = 5,
        pause: float = 0.5,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.place = f"the vLLM server at {self.url}"
        self.longest: int | None = None
        self.masked = masked
        self.lost: Callable[[], None] = lambda: None
        self.model = ""
        self.concurrency, self.tries, self.pause = concurrency, tries, pause
        self.wait, self.log = wait, log
        try:
            parts = urlsplit(self.url)
        except ValueError:  # brackets that are no address of IPv6
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(
                f"--engine-url {url}: this is no address of a server; write it as in http://127.0.0.1:8000"
            )
        self.host = parts.hostname
        key = os.environ.get("VLLM_API_KEY")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx2.Client(
            base_url=self.url,
            headers=self._headers,
            timeout=httpx2.Timeout(timeout, connect=10.0),
            limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
        )
        self._outages, self._beyond = 0, ""
        self._mending, self._saying = threading.Lock(), threading.Lock()
        self._away_since: float | None = None
        self._closed = threading.Event()

    def close(self) -> None:
        self._closed.set()
        self._http.close()

    def probe(self) -> None:
        """See whether it is there; one that is too busy to say so is.

        Raises:
            EngineError: it cannot be reached.
        """
        try:
            # By a connection of its own: all others may be busy with draws.
            response = httpx2.get(f"{self.url}/v1/models", headers=self._headers, timeout=PROBE)
        except (httpx2.ReadTimeout, httpx2.WriteTimeout):
            return
        except httpx2.TransportError as error:
            raise EngineError(f"{self.place} could not be reached: {error or type(error).__name__}") from error
        if response.status_code in AWAY:
            raise EngineError(f"{self.place} is not there: its proxy answers {response.status_code}")

    # before the first draw -----------------------------------------------------------------------------------------

    def check(self, model: str, *, adapters: bool, folder: bool) -> None:
        """The server is there, serves one model to train or the one asked for, and can do all that a run needs.

        Args:
            model: name or folder of the model that is trained.
            adapters: adapters will be loaded into it; folder: whole weights, from a folder.

        Raises:
            UsageError: it does not; says what to start it with.
        """
        try:
            cards = self._ask("GET", "/v1/models")["data"]
            bases = [card for card in cards if not card.get("parent")]
            ids = [card["id"] for card in bases]
        except Refused as error:
            hint = "set VLLM_API_KEY to its key" if error.status in (401, 403) else "is it a vLLM server?"
            raise UsageError(f"--engine-url: {error}; {hint}") from error
        except EngineError as error:
            raise UsageError(f"--engine-url: {error}; start one with {START}") from error
        except (TypeError, KeyError, AttributeError) as error:
            raise UsageError(
                f"--engine-url: what answers at {self.url} lists no models as a vLLM server does"
            ) from error
        named = [card for card in bases if model in (card["id"], card.get("root"))]
        if not (named or len(bases) == 1):
            raise UsageError(f"{self.place} serves {', '.join(ids) or 'no model'}, but the model trained is {model}")
        card = (named or bases)[0]
        self.model, self.longest = card["id"], card.get("max_model_len")
        if adapters:
            self._has(
                "/v1/load_lora_adapter", "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, --enable-lora and --max-lora-rank"
            )
        if folder:
            self._has("/collective_rpc", "VLLM_SERVER_DEV_MODE=1")
            self._has("/reset_prefix_cache", "VLLM_SERVER_DEV_MODE=1")
        self._check_probabilities()

    def _has(self, path: str, needs: str) -> None:
        # An empty order is refused where the endpoint exists, and does nothing.
        try:
            self._ask("POST", path, {})
        except Refused as error:
            if error.status in (404, 405):
                raise UsageError(
                    f"{self.place} has no {path}: it was started without {needs}, or is older than what cohort speaks "
                    f"to. Start it with: {START}"
                ) from error
        except EngineError as error:
            raise UsageError(f"--engine-url: trying it out failed: {error}") from error

    def _check_probabilities(self) -> None:
        """Log-probabilities are those of the distribution drawn from: where one token is left to draw, all are 0."""
        params = {"n": 1, "seed": 0, "max_tokens": 4, "logprobs": 0, "temperature": 1.0, "top_k": 1, "ignore_eos": True}
        try:
            answer = drawn(self, Order([1, 2, 3], params))
        except EngineError as error:
            raise UsageError(f"--engine-url: trying it out failed: {error}") from error
        if any(abs(value) > 1e-3 for value in answer.logp):
            raise UsageError(
                f"{self.place} reports log-probabilities of another distribution than it draws from: start it with "
                f"--logprobs-mode processed_logprobs"
            )
        if self.masked and answer.support is None:
            raise UsageError(
                f"{self.place} does not say which tokens truncation keeps, which scoring needs: start it with "
                "--return-sampling-mask, or leave top_p, top_k and min_p as they are by default"
            )

    # drawing -------------------------------------------------------------------------------------------------------

    def draws(self) -> ServerDraws:
        """See Backend.draws."""
        self._beyond = ""
        return ServerDraws(self)

    def draw(self, order: Order, given_up: threading.Event) -> Answer:
        """The answer to an order; `given_up` is set when nobody waits for it any more."""
        params = plain(order.params)
        body: dict[str, Any]
        if self.masked:
            # What is not truncated, greedy draws for example, goes the same way: the server has one rule for all.
            body = {"model": self.model, "token_ids": order.tokens, "sampling_params": params}
            path = "/inference/v1/generate"
        else:
            body = {"model": self.model, "prompt": order.tokens, "return_token_ids": True, **params}
            path = "/v1/completions"
        answer: Answer = self._ask("POST", path, body, read=_answer, given_up=given_up)
        return answer

    # weights -------------------------------------------------------------------------------------------------------

    def load(self, folder: str) -> None:
        """See Backend.load."""
        self._ask("POST", "/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": folder}})
        self.forget()

    def forget(self) -> None:
        """See Backend.forget."""
        self._ask("POST", "/reset_prefix_cache", read=_success)

    def workers(self) -> int:
        """GPUs that it runs on."""
        return int(self._ask("GET", "/get_world_size")["world_size"])

    def transfer(self) -> str | None:
        """The weight transfer backend that it was started with; None if it does not say.

        Raises:
            UsageError: it cannot be reached.
        """
        try:
            held = self._ask("GET", "/server_info?config_format=json")["vllm_config"]["weight_transfer_config"]
            return str(held["backend"])
        except (Refused, KeyError, TypeError):
            return None
        except EngineError as error:
            raise UsageError(f"--engine-url: {error}; start one with {START}") from error

    def adopt(self, name: str, folder: str, replaces: str | None) -> None:
        """See Backend.adopt."""
        self._ask("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": folder, "load_inplace": True})
        self.model = name
        if replaces is not None:
            try:
                self._ask("POST", "/v1/unload_lora_adapter", {"lora_name": replaces})
            except Refused as error:
                if error.status not in (400, 404):  # not there any more: all the better
                    raise

    # HTTP ----------------------------------------------------------------------------------------------------------

    def _ask(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        read: Callable[[Any], Any] = lambda value: value,
        given_up: threading.Event | None = None,
    ) -> Any:
        """What `read` makes of the answer to a request, which is made again where that may help.

        A server that fails it is asked `tries` times, and one that cannot be reached for `wait` seconds.

        Args:
            read: raises ValueError for an answer that is none. It is given None for one that is not JSON.
            given_up: of a draw: set when nobody waits for the answer any more. Where a draw lost the connection, or the
                adapter that it asks for is gone, the weights are sent once more, since a server that was started anew
                draws from what it was started with.

        Raises:
            Refused: the request is wrong, or unknown there.
            EngineError: it failed for good.
        """
        failed, pauses, lost, unsure, seen = 0, 0, False, False, 0
        away_since: float | None = None
        while True:
            if lost and given_up is not None:
                self._mend(seen)
            away, lost = False, False
            seen = seen if unsure else self._outages
            try:
                response = self._http.request(method, path, json=body)
                if not response.is_error:
                    found = read(response.json() if "json" in response.headers.get("content-type", "") else None)
                    self._say_there()
                    if not (unsure and given_up is not None):
                        return found
                    # A proxy answered for a server that was away: whether it is still the same, nobody says.
                    self._mend(seen)
                    unsure = False
                    continue
                status, problem = (
                    response.status_code,
                    f"answered {path} with {response.status_code}: {_message(response)}",
                )
                away = status in AWAY
                unsure = unsure or away
                if status == 404 and given_up is not None and not failed:
                    lost = True
                elif status not in PASSING:
                    raise Refused(f"{self.place} {problem}", status)
            except (httpx2.ReadTimeout, httpx2.WriteTimeout, httpx2.PoolTimeout) as error:
                problem = f"gave no answer to {path} in time ({type(error).__name__})"
            except httpx2.TransportError as error:
                problem, away, lost = f"could not be reached for {path}: {error or type(error).__name__}", True, True
            except ValueError as error:
                problem = f"gave an answer to {path} that cannot be read: {error}"
            now = time.monotonic()
            if away:
                away_since = now if away_since is None else away_since
                left, how = away_since + self.wait - now, f" (waited {now - away_since:.0f} s)"
                if away_since < now:
                    self._say_away(problem, away_since)
            else:
                failed, away_since = failed + 1, None
                left, how = float(self.tries - failed), f" (tried {failed} times)"
            pause = min(self.pause * 2**pauses, LONGEST_PAUSE, left if away else LONGEST_PAUSE)
            if left <= 0 or (given_up or self._closed).wait(pause):
                raise EngineError(f"{self.place} {problem}{how}")
            pauses += 1

    def _say_away(self, problem: str, since: float) -> None:
        """Say once, for all requests that meet it, that the server is waited for."""
        with self._saying:
            if self._away_since is None:
                self._away_since = since
                self.log(f"{self.place} {problem}: waiting for it, {self.wait:.0f} s at most (engine_wait)")

    def _say_there(self) -> None:
        if self._away_since is None:
            return
        with self._saying:
            if self._away_since is not None:
                self.log(f"{self.place} answers, after {time.monotonic() - self._away_since:.0f} s")
                self._away_since = None

    def _mend(self, seen: int) -> None:
        """Send the weights once more after an outage: one thread for all that met it, and only once if it fails.

        Args:
            seen: outages mended when the request was made that met it.
        """
        with self._mending:
            if seen == self._outages:
                if self._beyond:
                    raise EngineError(self._beyond)
                try:
                    self.lost()
                except EngineError as error:
                    self._beyond = str(error)
                    raise
                self._outages += 1


class ServerDraws:
    """See `cohort.engine.vllm.engine.Draws`: a thread for every request in flight."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.given_up = threading.Event()
        self.pool = ThreadPoolExecutor(server.concurrency, thread_name_prefix="vllm")
        self.done: SimpleQueue[tuple[int, Future[Answer]]] = SimpleQueue()
        self.count = 0

    def submit(self, order: Order) -> int:
        """See Draws."""
        number, self.count = self.count, self.count + 1
        future = self.pool.submit(self.server.draw, order, self.given_up)
        future.add_done_callback(lambda finished: self.done.put((number, finished)))
        return number

    def next(self) -> tuple[int, Answer]:
        """See Draws."""
        number, finished = self.done.get()
        return number, finished.result()

    def next_unless(self, stop: Callable[[], bool]) -> tuple[int, Answer] | None:
        """See Draws."""
        while not stop():
            with contextlib.suppress(Empty):
                number, finished = self.done.get(timeout=POLL)
                return number, finished.result()
        return None

    def close(self) -> None:
        """See Draws."""
        # Without waiting: after a failure the others' answers are of no use.
        self.given_up.set()
        self.pool.shutdown(wait=False, cancel_futures=True)


def _answer(body: Any) -> Answer:
    """The answer in a response of either endpoint.

    Raises:
        ValueError: it holds no whole completion.
    """
    try:
        choice = body["choices"][0]
        tokens, logprobs, reason = choice["token_ids"], choice["logprobs"], choice["finish_reason"]
        if "content" in logprobs:
            logp = [float(token["logprob"]) for token in logprobs["content"]]
        else:
            logp = [float(value) for value in logprobs["token_logprobs"]]
        if tokens is None:
            raise ValueError("no token ids; vLLM gives them since 0.10.2")
        return Answer(list(tokens), logp, reason, choice.get("stop_reason"), choice.get("sampling_mask"))
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"no completion with token ids and log-probabilities ({error!r})") from error


def _success(body: Any) -> None:
    if isinstance(body, dict) and body.get("success") is False:
        raise ValueError("the prefix cache is still in use")


def _message(response: httpx2.Response) -> str:
    """What the server says of an error, in short."""
    try:
        body = response.json()
        said = body.get("error", body) if isinstance(body, dict) else body
        said = said.get("message") or said.get("detail") or said if isinstance(said, dict) else said
    except ValueError:
        said = response.text
    return " ".join(str(said).split())[:300] or response.reason_phrase
