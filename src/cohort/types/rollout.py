"""Prompts, requests and rollouts: what is asked of a policy, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, Protocol

from torch import Tensor

from cohort.errors import UsageError
from cohort.types.context import Context
from cohort.types.soft import Mixer
from cohort.types.support import Support, concatenated

Message = dict[str, Any]


@dataclass(frozen=True)
class Prompt:
    """One task of the data set.

    Attributes:
        id: identity of the prompt; rows with the same rendered text have the same id. Group ids come from it.
        text: what the policy is conditioned on, after the chat template.
        tokens: `text` as actions of the policy (token ids).
        source: what reward functions see: the plain text, or the chat messages.
        row: all columns of the data set's row.
        tools: schemas of functions that the chat template is given with the messages.
        where: what to call that row in messages; empty if it stands in no data set.
    """

    id: str
    text: str
    tokens: tuple[int, ...]
    source: str | list[Message]
    row: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[Mapping[str, Any]] = ()
    where: str = field(default="", compare=False, repr=False)

    @property
    def question(self) -> str:
        """What is asked: the plain text, or the last message of the user."""
        if isinstance(self.source, str):
            return self.source
        asked = [each for each in self.source if each.get("role") == "user"] or self.source
        return str(asked[-1].get("content") or "")


Writer = Literal["policy", "environment", "method"]


@dataclass(frozen=True)
class Segment:
    """A run of a rollout's actions with one author.

    Attributes:
        actions: L token ids.
        writer: "policy": it chose them, and is trained on them; "environment": tool results and observations; "method":
            what a method put in, such as hints and exits.
        logp: L log-probabilities (nats) under the sampling policy, over what each was drawn over; None: they were not drawn in
            this context, so that the trainer must score them where it needs to know.
        entropy: L entropies (nats) of the distributions that they were drawn from; None where they are not known.
        support: what they were drawn over; None for all that the model has.
        version: of the weights that drew them: the number of updates before.
    """

    actions: tuple[int, ...]
    writer: Writer = "policy"
    logp: tuple[float, ...] | None = None
    entropy: tuple[float, ...] | None = None
    support: Support | None = field(default=None, compare=False, repr=False)
    version: int = 0

    def __len__(self) -> int:
        return len(self.actions)

    def cut(self, count: int) -> Segment:
        """The first `count` actions."""
        return replace(
            self,
            actions=self.actions[:count],
            logp=None if self.logp is None else self.logp[:count],
            entropy=None if self.entropy is None else self.entropy[:count],
            support=None if self.support is None else self.support.cut(count),
        )

    def numbers(self, values: tuple[float, ...] | None) -> tuple[float, ...]:
        """`logp` or `entropy` with NaN where the policy's own are not known, 0 where nothing was drawn."""
        if values is not None:
            return values
        return (math.nan if self.writer == "policy" else 0.0,) * len(self)


def head(segments: Iterable[Segment], count: int) -> tuple[Segment, ...]:
    """The segments of the first `count` actions, the last of them cut."""
    out: list[Segment] = []
    for segment in segments:
        if count <= 0:
            break
        out.append(segment if len(segment) <= count else segment.cut(count))
        count -= len(segment)
    return tuple(out)


@dataclass(frozen=True)
class Turn:
    """What the policy said once, and what its environment answered.

    Attributes:
        start, end: the policy's part are the rollout's actions [start, end), with what a method put among them.
        messages: what the policy said, then what the environment answered, if anything.
        reward: of the turn; None where the environment gives none.
        context: what the policy was conditioned on in place of all that stood there before, where the conversation was
            rendered anew for this turn; None where the turn stands behind the earlier ones.
        text: the policy's words as they are, where its message parts calls and thoughts from them.
    """

    start: int
    end: int
    messages: tuple[Message, ...] = ()
    reward: float | None = None
    context: Context | None = None
    text: str | None = None

    @property
    def texts(self) -> list[str]:
        """What was said, by the policy first."""
        said = [str(message["content"]) for message in self.messages]
        return said if self.text is None else [self.text, *said[1:]]


class Processor(Protocol):
    """What changes the temperature of every next token of a request, by what its distribution is like.

    Requests with equal processors are handled together, so it must be hashable.
    """

    def factor(self, entropy: Tensor) -> Tensor:
        """[B] what the run's temperature is multiplied by, for distributions of the entropies [B] (nats) at it."""
        ...


@dataclass(frozen=True)
class Request:
    """An order to draw one rollout of `prompt`.

    Attributes:
        prompt: the task, as the reward functions and the group see it.
        context: what the policy is conditioned on (the prompt; with guidance, the prompt with it), and where the history has
            several pieces, their contexts (`Context.rebuilt`). Token ids alone are taken as a context without media.
        seed: the same request with the same seed draws the same tokens.
        max_new_tokens: most actions that come behind the history: those drawn, and what an environment says between them.
        history: what already stands there; the policy continues after it.
        meta: what the method that made the request wants to find again at the rollout (exit position, hint level).
        processor: changes the temperature of every token; None draws all at that of the call.
        mixer: draws its steps as soft ones until they end; None draws tokens.
        environment_seed: rollouts of one prompt with the same one meet the same environment.
        parent: id of the rollout that the history was taken from; None if it is a beginning.
        turns: of the history, those that are over, with their environment's answer.
        agent: who speaks, in an environment of several agents; empty where there is one.
    """

    prompt: Prompt
    context: Context
    seed: int
    max_new_tokens: int
    history: tuple[Segment, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    processor: Processor | None = None
    mixer: Mixer | None = None
    environment_seed: int = 0
    parent: str | None = None
    turns: tuple[Turn, ...] = ()
    agent: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.context, Context):
            object.__setattr__(self, "context", Context(tuple(self.context)))

    @cached_property
    def prefix(self) -> tuple[int, ...]:
        """The actions of the history."""
        return tuple(action for segment in self.history for action in segment.actions)


Status = Literal["finished", "truncated", "failed"]


@dataclass(frozen=True)
class Rollout:
    """One episode, or an agent's part of one, and what is known of it.

    Attributes:
        request: the order it answers.
        segments: its actions by who wrote them, those of the request's history included.
        status: "finished": it ended by a stop token or a stop string, or its environment ended it; "truncated": it ran into
            a limit (of tokens; of an episode also of turns or seconds); "failed": its environment did, and it is to be left
            out (`error` says why).
        text: the completion as text, without the stop token, and without a stop string and what follows it; of several turns
            what was said in each, parted by empty lines.
        id: names it within the run.
        turns: what the policy said, and what its environment answered; one where nothing answers.
        error: why it failed; empty if it did not.
        end: why its episode ended: "done" (its environment said so), "turns", "tokens" or "seconds" (a limit), "failed" (its
            environment did) or "unparseable" (its environment could not read what the policy said); empty where nothing
            answers.
        waits: True if it is not over and goes on in a later step. It has the reward 0 until then, and its accuracy is not
            known.
        opening: the messages that its environment showed first, where these are not the prompt.
        environment: the environment at its end, for reward functions that ask for it; None where none does.
        components: reward component -> value (None: the component does not apply).
        reward: weighted sum of the components; set by scoring. NaN if it has none: no reward applies to it, or one failed.
        accuracy: 1.0 if the verifier calls it correct, else 0.0; set by scoring. NaN if the verifier does not apply.
        failed: True if its environment or a reward function failed, and it is to be left out.
        fields: further values by field name, for methods that declare that they need them: a number, or one a token.
        logged: what reward functions logged of it, by column (`log_extra`); set by scoring.
        episode: id of the episode that it is a part of; empty if it is all of it.
        auxiliary: True if guidance made it to be trained on, but it belongs to no group that is compared: only functions that
            declare so see it, and it is no rollout of the step's record and metrics.
        others: what other agents said in its episode, and it in other conversations; drawn and scored with it, they
            become rollouts of the step next to it.
    """

    request: Request
    segments: tuple[Segment, ...]
    status: Status = "finished"
    text: str = ""
    id: str = ""
    turns: tuple[Turn, ...] = ()
    error: str = ""
    components: dict[str, float | None] = field(default_factory=dict)
    reward: float = 0.0
    accuracy: float = 0.0
    failed: bool = False
    fields: dict[str, float | list[float]] = field(default_factory=dict)
    logged: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    environment: Any = field(default=None, compare=False, repr=False)
    episode: str = ""
    auxiliary: bool = False
    others: tuple[Rollout, ...] = ()
    end: str = ""
    waits: bool = False
    opening: tuple[Message, ...] = ()

    @property
    def prompt(self) -> Prompt:
        return self.request.prompt

    @property
    def agent(self) -> str:
        """Who spoke, in an environment of several agents; empty where there is one."""
        return self.request.agent

    @property
    def parts(self) -> list[Rollout]:
        """Itself and the others of its episode, each alone."""
        return [self.replace(others=()), *self.others] if self.others else [self]

    @property
    def parent(self) -> str | None:
        """The id of the rollout that it goes on from; None if it has a beginning of its own."""
        return self.request.parent

    @cached_property
    def context(self) -> Context:
        """What its actions were conditioned on: the request's context, and those that stood in place of it later."""
        rebuilt = tuple((turn.start, turn.context) for turn in self.turns if turn.context is not None)
        return replace(self.request.context, rebuilt=rebuilt) if rebuilt else self.request.context

    @property
    def finished(self) -> bool:
        """False if it ran into a limit, or failed."""
        return self.status == "finished"

    @cached_property
    def tokens(self) -> list[int]:
        """L token ids, everything that was inserted included."""
        return [action for segment in self.segments for action in segment.actions]

    @cached_property
    def mask(self) -> list[int]:
        """L times 1 where the policy itself chose the token, 0 where something else wrote it."""
        return [int(segment.writer == "policy") for segment in self.segments for _ in segment.actions]

    @cached_property
    def sampler_logp(self) -> list[float]:
        """L log-probabilities (nats) under the sampling policy; NaN where it did not draw the token in this context."""
        return [value for segment in self.segments for value in segment.numbers(segment.logp)]

    @cached_property
    def sampler_entropy(self) -> list[float]:
        """L entropies (nats) of the distributions sampled from; NaN where they are not known."""
        return [value for segment in self.segments for value in segment.numbers(segment.entropy)]

    @cached_property
    def versions(self) -> list[int]:
        """L versions of the weights that drew the tokens."""
        return [segment.version for segment in self.segments for _ in segment.actions]

    @cached_property
    def support(self) -> Support | None:
        """What its tokens were drawn over; None for all that the model has."""
        return concatenated([(len(segment), segment.support) for segment in self.segments])

    @property
    def scored(self) -> bool:
        """True if it has a reward: methods see no other rollouts."""
        return not math.isnan(self.reward)

    def replace(self, **changes: Any) -> Rollout:
        """A copy with some attributes changed."""
        return replace(self, **changes)

    def before(self, at: int) -> tuple[int, ...]:
        """Token ids that its action at `at` follows: of its piece, the context and the actions before it."""
        return self.context.before(self.tokens[:at])

    def head(self, count: int) -> tuple[Segment, ...]:
        """The segments of its first `count` tokens: the history of a request that branches off there."""
        return head(self.segments, count)

    def branches(self, at: int, seeds: Sequence[int], *, insert: tuple[int, ...] = ()) -> list[Request]:
        """Requests for rollouts that go on after its first `at` actions, one for each seed.

        Args:
            insert: token ids that a method puts there first.

        Raises:
            ValueError: there is no such place: it lies behind the end, or inside what the environment said.
            UsageError: others spoke in its episode.
        """
        if self.others:
            raise UsageError(
                "an episode of several agents cannot be gone on from inside: take a method that draws whole rollouts, or an "
                "environment of one agent"
            )
        if not 0 <= at <= len(self.tokens):
            raise ValueError(f"a rollout of {len(self.tokens)} actions does not go on after {at}")
        over = []
        for turn, following in pairwise(self.turns):
            if turn.end < at < following.start:
                raise ValueError(
                    f"after {at} actions the environment speaks: go on after {turn.end} or {following.start}"
                )
            if following.start <= at:
                over.append(turn)
        history = (*self.head(at), Segment(insert, "method")) if insert else self.head(at)
        context = self.context.until(at)
        return [
            replace(self.request, context=context, history=history, seed=seed, parent=self.id, turns=tuple(over))
            for seed in seeds
        ]

    def in_context(self, context: Context) -> Rollout:
        """The rollout behind another context than it was drawn in, `unscored`. Later pieces whose contexts begin with its own
        begin with the other one."""
        own = self.request.context.tokens
        turns = tuple(
            turn if turn.context is None else replace(turn, context=turn.context.begun(own, context.tokens))
            for turn in self.turns
        )
        return replace(self.unscored(), request=replace(self.request, context=context), turns=turns)

    def unscored(self) -> Rollout:
        """The rollout as one that was not drawn in its request's context: to be scored there before it is trained on."""
        return replace(self, segments=tuple(replace(s, logp=None, entropy=None, support=None) for s in self.segments))


@dataclass(frozen=True)
class Group:
    """Rollouts of one prompt, which are compared with each other."""

    prompt: Prompt
    rollouts: tuple[Rollout, ...]


def over_parts(change: Callable[[list[Rollout]], list[Rollout]], rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Rollouts changed with the others of their episodes, all in one call of `change`, which keeps their order."""
    changed = iter(change([part for rollout in rollouts for part in rollout.parts]))
    out = []
    for rollout in rollouts:
        first = next(changed)
        out.append(first.replace(others=tuple(next(changed) for _ in rollout.others)) if rollout.others else first)
    return out


def grouped(rollouts: Iterable[Rollout]) -> list[Group]:
    """Rollouts by their prompts, in order of first appearance."""
    members: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        members.setdefault(rollout.prompt.id, []).append(rollout)
    return [Group(group[0].prompt, tuple(group)) for group in members.values()]
