"""What every engine takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from cohort.types import Request
from cohort.types.soft import SoftStep
from cohort.types.support import Candidates, Rule


def context_of(request: Request) -> tuple[int, ...]:
    """Token ids that the next token follows."""
    return request.context.before(request.prefix)


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    The policy of a run is the distribution that it is drawn from, and the trainer scores under the same one
    (`cohort.types.support` makes it for both):

        p(y) = softmax((logits + logit_bias) / temperature) over the tokens that could be drawn

    Those are all, without the stop tokens where the completion is shorter than `min_new_tokens`, and of them what top-k,
    then min-p, then top-p keep. The engine reports what was kept with every token (`Completion.candidates`).

    Attributes:
        temperature: the logits are divided by it; 0 takes the most likely token (its numbers are those of temperature 1,
            over all tokens).
        top_p: smallest set of most likely tokens with this mass; 1 keeps all.
        top_k: number of most likely tokens; 0 keeps all.
        min_p: tokens with at least this share of the most likely token's probability; 0 keeps all.
        stop_ids: token ids that end a rollout; None takes the policy's.
        min_new_tokens: tokens of a completion, a request's prefix included, before which no stop token can be drawn and
            no stop string ends it.
        stop: texts that end a rollout with the token that completes one of them, in the text of the drawn tokens. The
            tokens stay, and are trained on; the text ends before the stop string.
        logit_bias: token id -> what is added to its logit, before the temperature.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop_ids: frozenset[int] | None = None
    min_new_tokens: int = 0
    stop: tuple[str, ...] = ()
    logit_bias: Mapping[int, float] = field(default_factory=dict)

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def truncated(self) -> bool:
        """True if top-p, top-k or min-p can leave tokens out."""
        return not self.greedy and (self.top_p < 1.0 or self.top_k > 0 or self.min_p > 0.0)

    def rule(self, stop_ids: frozenset[int]) -> Rule:
        """What holds for every token, for scoring; `stop_ids` are the policy's."""
        return Rule(self.logit_bias, self.min_new_tokens, self.stop_ids if self.stop_ids is not None else stop_ids)


@dataclass
class Completion:
    """Tokens drawn for a request, its prefix not included.

    Attributes:
        tokens: token ids; a stop token that ended it, or the token that completed a stop string, is the last.
        logp: raw log-probabilities (nats): of the whole vocabulary at the sampling temperature, without logit bias,
            minimum length and truncation, in float32.
        sampled_logp: log-probabilities of the distribution sampled from (see `Sampling`), that of a processor included.
        entropy: entropies (nats) of the policy's distributions: as sampled from, but at the sampling temperature.
        finished: True if a stop token or a stop string ended it.
        candidates: for each token, those that could be drawn in its place (see `cohort.types.support.Candidates`), or
            None where nothing was truncated. An engine that truncates must report it, or refuse to.
        policy_logp: log-probabilities under the policy, what the trainer's scoring gives for the same weights; None where
            that is `sampled_logp`: everywhere but for a request with a temperature of its own (`Request.processor`).
        stop: the stop string that ended it; None if none did.
        soft: the soft steps among its tokens (the heaviest candidate of each), None for a discrete one; None if the request
            has no mixer. Their log-probabilities are log densities.
        parts: (version of the weights, what was drawn with them), in their order, where the weights changed while it was drawn;
            empty where they did not.
    """

    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    sampled_logp: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    finished: bool = False
    candidates: list[Candidates] | None = None
    policy_logp: list[float] | None = None
    stop: str | None = None
    soft: list[SoftStep | None] | None = None
    parts: Sequence[tuple[int, Completion]] = ()


class Session(Protocol):
    """Requests that are drawn together, while others still come in: a rollout's next turn, for one.

    The weights must not change while it is open; where they do (`cohort.engine.detached`), a completion says which of its
    tokens were drawn with which. The same request with the same seed gives the same tokens whatever else
    is drawn beside it, and whenever it comes (on a CPU in float32).

    A request may go on from one that has ended: its history is that one's, what was drawn, and what others said since. An
    engine may keep what it has computed of a request for that, until memory calls for it or `forget` is called, and gives the
    same tokens whether it did or not.
    """

    @property
    def waiting(self) -> int:
        """Requests that were submitted and whose completions `next` has not given yet."""
        ...

    def submit(self, request: Request) -> int:
        """Have a request drawn; its number, counted from 0."""
        ...

    def forget(self, number: int) -> None:
        """Say that no further request will go on from this one."""
        ...

    def end(self) -> None:
        """Say that nothing more will be submitted, which an engine may make use of."""
        ...

    def next(self) -> tuple[int, Completion]:
        """The number and completion of the request that finishes next.

        Raises:
            LookupError: no request is waiting.
        """
        ...

    def next_unless(self, stop: Callable[[], bool]) -> tuple[int, Completion] | None:
        """As `next`, but None as soon as `stop` says so, which is asked often: there is something to submit, for one."""
        ...

    def close(self) -> None:
        """Give up what is not finished."""
        ...


class Engine(Protocol):
    """Draws completions.

    Attributes:
        exact: True if its log-probabilities are those of the trainer's own weights and arithmetic, up to rounding.
    """

    exact: bool

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, Completion]]:
        """(place of the request, completion) of every request, in the order in which they finish (see `complete`)."""
        ...

    def session(self, sampling: Sampling) -> Session:
        """A session in which requests are drawn with the weights as they are now."""
        ...

    def sync(self) -> None:
        """Take over the trainer's current weights; nothing to do for an engine that shares them."""
        ...

    def close(self) -> None:
        """Give back what it took: memory, connections, files."""
        ...


@runtime_checkable
class Copying(Protocol):
    """An engine that draws with a copy of the trainer's weights, which may have come to it in part."""

    def not_taken_over(self) -> list[str]:
        """Kinds of weights whose changes do not reach the copy, as far as that can be found out by changing each for a
        moment: names of parameters, with * for the number of the layer."""
        ...


@runtime_checkable
class Measured(Protocol):
    """An engine that has numbers to report."""

    def metrics(self) -> dict[str, float]:
        """name -> what it did since this was asked last, and how its parts are."""
        ...


def complete(session: Session, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
    """(place of the request, completion) of requests that come all at once, in the order in which they finish."""
    try:
        for request in requests:
            session.submit(request)
        session.end()
        while session.waiting:
            yield session.next()
    finally:
        session.close()
