"""vLLM as an engine: in this process, on the trainer's GPU, or as a server that several machines may share.

Both take a request as token ids with its own seed, so that nothing is tokenized twice and vLLM's prefix cache computes a
prompt once for its whole group, and both take over the trainer's weights before the first draw after `sync`. Written
against vLLM 0.33: https://docs.vllm.ai/en/latest/ (`training/weight_transfer`, `training/layerwise`,
`training/sampling_mask`, `features/lora`, `serving/openai_compatible_server`); docs/engines.md says what runs where.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from cohort.engine.base import Completion, Sampling, complete, context_of
from cohort.engine.vllm.params import check_request, parameters
from cohort.errors import EngineError, UsageError
from cohort.types import Request
from cohort.types.policy import Policy

# Mean difference (nats) of a probe's log-probabilities from the trainer's beyond which the models are not the same; that
# of equal weights in half precision is a tenth of it at most.
SAME_MODEL = 0.5
# That beyond which a change of a weight by its own size, looked for, has not arrived, at the least.
PERTURBED = 2e-3


@dataclass(frozen=True)
class Order:
    """A request in vLLM's terms.

    Attributes:
        tokens: prompt token ids.
        params: arguments of vLLM's `SamplingParams`, which are also keys of its completion requests.
    """

    tokens: list[int]
    params: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What vLLM gives for an order.

    Attributes:
        tokens: token ids, the stop token included.
        logp: processed log-probabilities (nats), a token each: of the distribution that it was drawn from.
        reason: "stop" or "length".
        stop: the stop string that ended it, or the id of the stop token; None for the end-of-sequence token.
        support: for each token, the ids that could be drawn in its place, where `Backend.masked`.

    Raises:
        ValueError: it is no whole completion.
    """

    tokens: list[int]
    logp: list[float]
    reason: str
    stop: str | int | None = None
    support: list[list[int]] | None = None

    def __post_init__(self) -> None:
        count = len(self.tokens)
        if self.reason not in ("stop", "length"):
            raise ValueError(f"a completion that ended by {self.reason!r}")
        if count == 0 or len(self.logp) != count or (self.support is not None and len(self.support) != count):
            raise ValueError(f"a completion of {count} tokens with {len(self.logp)} log-probabilities")


class Served(Policy, Protocol):
    """A policy that vLLM can hold: its `model` is one of transformers."""

    @property
    def is_adapter(self) -> bool:
        """True if low-rank adapters are trained rather than the model itself."""
        ...


class Draws(Protocol):
    """Orders that are drawn together, while others still come in."""

    def submit(self, order: Order) -> int:
        """Have an order drawn; its number, counted from 0."""
        ...

    def next(self) -> tuple[int, Answer]:
        """The number and answer of the order that finishes next.

        Raises:
            EngineError: it could not be had.
        """
        ...

    def next_unless(self, stop: Callable[[], bool]) -> tuple[int, Answer] | None:
        """As `next`, but None as soon as `stop` says so, which is asked often."""
        ...

    def close(self) -> None:
        """Give up what is not finished."""
        ...


class Backend(Protocol):
    """Where vLLM runs.

    Attributes:
        place: of it, for messages.
        longest: most tokens of prompt and completion together; None if unknown.
        masked: True if it reports which tokens truncation kept (and draws in no other way).
        lost: called when the connection was lost and is there again, since the weights may have been lost with it.
    """

    place: str
    longest: int | None
    masked: bool
    lost: Callable[[], None]

    def draws(self) -> Draws:
        """Where orders can be given."""
        ...

    def load(self, folder: str) -> None:
        """Read all weights from a checkpoint's folder, and forget what was cached of the old ones."""
        ...

    def adopt(self, name: str, folder: str, replaces: str | None) -> None:
        """Draw with the adapter in a folder from now on; names are never used for other weights again, so that nothing
        cached of an older one is taken for it."""
        ...

    def forget(self) -> None:
        """Forget what was cached of the weights so far."""
        ...

    def close(self) -> None: ...


class Route(Protocol):
    """A way by which the trainer's weights reach vLLM."""

    def send(self) -> None:
        """Have vLLM take over the weights as they are now."""
        ...

    def again(self) -> None:
        """Have vLLM take over once more what was sent last."""
        ...

    def close(self) -> None: ...


class VLLMEngine:
    """Samples with vLLM.

    Log-probabilities are vLLM's, of other kernels than the trainer's: near, not equal, so that the loop scores for
    itself where it needs exact ones. vLLM reports no entropies: they are nan, as are raw log-probabilities where what is
    drawn from is shaped (see `Completion`).

    Args:
        policy: its weights are what is drawn with.
        backend: where vLLM runs.
        route: how the weights get there.
        known: that vLLM holds this model was seen before.
    """

    exact = False

    def __init__(self, policy: Served, backend: Backend, route: Route, *, known: bool = False) -> None:
        self.policy, self.backend, self.route = policy, backend, route
        self._current, self._known = False, known
        backend.lost = route.again

    def sync(self) -> None:
        """Weights have changed: they are sent when next something is drawn.

        Sent at once, a failure would fall between an update and its step's record, and the step would be lost.
        """
        self._current = False

    def close(self) -> None:
        """Give back what was taken: memory, connections, files."""
        self.route.close()
        self.backend.close()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """See Engine.generate.

        Raises:
            UsageError: what vLLM cannot draw, or a vLLM that does not hold this model; nothing was drawn.
            EngineError: vLLM failed.
        """
        for request in requests:  # before any of them is drawn
            self.order(request, sampling)
        return complete(self.session(sampling), requests)

    def session(self, sampling: Sampling) -> VLLMSession:
        """See Engine.session; `submit` raises as `generate` does."""
        return VLLMSession(self, sampling)

    def ready(self) -> None:
        """Have vLLM hold the weights as they are now."""
        if not self._current:
            self.route.send()
            self._current = True
        if not self._known:
            apart = self._apart()
            if not apart < SAME_MODEL:
                raise UsageError(
                    f"{self.backend.place} does not hold the model that is trained: its log-probabilities are {apart:.2g} "
                    f"nats off on average. Start it with the model {self.policy.name}, and without quantization"
                )
            self._known = True

    def not_taken_over(self) -> list[str]:
        """See Copying: each kind of weights is changed, sent, and put back; [] where nothing can be sent."""
        found = []
        try:
            self.route.send()
            usual = max(self._apart(), PERTURBED)
            for name, parameters in kinds(self.policy).items():
                kept = [parameter.detach().clone() for parameter in parameters]
                try:
                    perturb(parameters)
                    self.route.send()
                    if not self._apart() < 3 * usual:
                        found.append(name)
                finally:
                    with torch.no_grad():
                        for parameter, before in zip(parameters, kept, strict=True):
                            parameter.copy_(before)
        except EngineError:
            return []
        finally:
            self._current = False
        return found

    def order(self, request: Request, sampling: Sampling) -> Order:
        """A request in vLLM's terms.

        Raises:
            UsageError: vLLM cannot draw it.
        """
        backend = self.backend
        check_request(request)
        tokens = context_of(request)
        if backend.longest is not None and len(tokens) + request.max_new_tokens > backend.longest:
            raise UsageError(
                f"{backend.place} takes at most {backend.longest} tokens, but a prompt of {len(tokens)} and "
                f"{request.max_new_tokens} new ones are asked for: start it with a larger --max-model-len, or lower "
                "max_new_tokens"
            )
        stop_ids = sampling.stop_ids if sampling.stop_ids is not None else self.policy.renderer.stop_ids
        params = parameters(sampling, stop_ids, seed=request.seed, count=request.max_new_tokens, masked=backend.masked)
        params["min_tokens"] = min(request.max_new_tokens, max(0, sampling.min_new_tokens - len(request.prefix)))
        return Order(list(tokens), params)

    def completion(self, request: Request, sampling: Sampling, answer: Answer) -> Completion:
        """What vLLM's answer to a request says."""
        count = len(answer.tokens)
        candidates = answer.support if sampling.truncated else None
        if sampling.truncated and candidates is None:
            raise EngineError(f"{self.backend.place} did not say which tokens truncation kept")
        unknown = [math.nan] * count
        # A greedy draw that was asked for as the best of one says nothing of temperature 1.
        drawn = unknown if sampling.greedy and self.backend.masked else answer.logp
        # They are raw, too, where nothing was changed or left out.
        changed = count if sampling.truncated or sampling.logit_bias else sampling.min_new_tokens - len(request.prefix)
        return Completion(
            tokens=answer.tokens,
            logp=[math.nan if t < changed else value for t, value in enumerate(drawn)],
            sampled_logp=drawn,
            entropy=unknown,
            finished=answer.reason == "stop",
            candidates=None if candidates is None else [np.array(sorted(ids), dtype=np.int32) for ids in candidates],
            stop=answer.stop if isinstance(answer.stop, str) else None,
        )

    def _apart(self) -> float:
        """Mean difference (nats) of the log-probabilities of a few tokens that vLLM draws from those that the trainer gives
        them; infinite for tokens that the trainer's model does not have."""
        context = list(self.policy.renderer.encode("1 2 3 4 5 6", start=True))
        count = 2 if self.backend.masked else 8
        params = parameters(Sampling(), frozenset(), seed=0, count=count, masked=self.backend.masked)
        if self.backend.masked:
            params["top_k"] = self.policy.vocabulary
        answer = drawn(self.backend, Order(context, params))
        actions = self.policy.actions_after([context], [answer.tokens])
        try:
            with torch.no_grad():
                own = self.policy.log_probs(actions, width=len(answer.tokens))["logp"][0].tolist()
        except (IndexError, ValueError):
            return math.inf
        return float(sum(abs(a - b) for a, b in zip(own, answer.logp, strict=True)) / len(own))


class VLLMSession:
    """See `cohort.engine.base.Session`."""

    def __init__(self, engine: VLLMEngine, sampling: Sampling) -> None:
        self.engine, self.sampling = engine, sampling
        self.alive: dict[int, Request] = {}
        self.draws: Draws | None = None

    @property
    def waiting(self) -> int:
        """See Session."""
        return len(self.alive)

    def submit(self, request: Request) -> int:
        """See Session."""
        order = self.engine.order(request, self.sampling)
        if self.draws is None:
            self.engine.ready()
            self.draws = self.engine.backend.draws()
        number = self.draws.submit(order)
        self.alive[number] = request
        return number

    def forget(self, number: int) -> None:
        """See Session: what vLLM's prefix cache holds of it goes when others need the room."""

    def end(self) -> None:
        """See Session."""

    def next(self) -> tuple[int, Completion]:
        """See Session."""
        if self.draws is None or not self.alive:
            raise LookupError("no request is waiting to be drawn")
        return self._completion(*self.draws.next())

    def next_unless(self, stop: Callable[[], bool]) -> tuple[int, Completion] | None:
        """See Session."""
        if self.draws is None or not self.alive:
            raise LookupError("no request is waiting to be drawn")
        found = self.draws.next_unless(stop)
        return None if found is None else self._completion(*found)

    def _completion(self, number: int, answer: Answer) -> tuple[int, Completion]:
        return number, self.engine.completion(self.alive.pop(number), self.sampling, answer)

    def close(self) -> None:
        """See Session."""
        if self.draws is not None:
            self.draws.close()
        self.draws, self.alive = None, {}


def kinds(policy: Served) -> dict[str, list[torch.nn.Parameter]]:
    """The trained parameters, those of all layers with one name, in which * stands for the layer's number."""
    own = {id(parameter) for parameter in policy.trainable()}
    found: dict[str, list[torch.nn.Parameter]] = {}
    for name, parameter in policy.model.named_parameters():
        if id(parameter) in own:
            found.setdefault(re.sub(r"\.\d+(?=\.|$)", ".*", name), []).append(parameter)
    return found


@torch.no_grad()
def perturb(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Change parameters, always alike, by noise of their own size."""
    g = torch.Generator().manual_seed(0)
    for parameter in parameters:
        noise = torch.randn(parameter.shape, generator=g).to(parameter)
        parameter.add_(noise * (max(float(parameter.float().square().mean().sqrt()), 0.05)))


def drawn(backend: Backend, order: Order) -> Answer:
    """The answer to a single order."""
    draws = backend.draws()
    try:
        draws.submit(order)
        return draws.next()[1]
    finally:
        draws.close()
