"""An episode in progress: its messages, its rewards, and its end."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cohort.data.messages import messages_of as checked
from cohort.data.prompts import LONGEST_TOKEN
from cohort.environments.base import End, Environment, EnvironmentFailed, Observation, Step
from cohort.errors import shown
from cohort.policies.conversation import Conversation, History, messages_of
from cohort.rewards.grader import ENVIRONMENT
from cohort.rewards.lent import Lent
from cohort.seeds import derive
from cohort.types import Context, Message, Prompt, Request, Rollout, Segment, Status, Turn
from cohort.types.policy import Renderer


@dataclass(frozen=True)
class Limits:
    """Where episodes end that do not end by themselves; None: nowhere.

    Attributes:
        turns: most turns.
        turn_tokens: most tokens of a turn; one that is cut ends the episode.
        seconds: wall-clock seconds from the reset on, looked at whenever an answer has come.
    """

    turns: int | None = None
    turn_tokens: int | None = None
    seconds: float | None = None


class EpisodeError(Exception):
    """An error that ends its own episode, and no other."""


@dataclass
class Episode:
    """An episode in progress: the conversation of its agent, or of one of its agents.

    Attributes:
        request: the order, with the context that the environment showed.
        environment: None if it could not be made.
        names: names of the components of the environment's reward; none where it does not reward.
        answers: see `EnvironmentFactory`.
        segments: all actions so far, the request's history first.
        turns: finished turns.
        again: turns of the history that are still to be replayed to the environment.
        start: place of the first action of the current turn.
        said, text: the policy's message of the current turn, and its text, once it is sampled.
        worth: component -> sum over the turns.
        status, ended: None while the episode lasts; see `Rollout`, of which `ended` is the `end`.
        conversation: of the agent's the one that this is.
        cast: all conversations of the episode, the first agent's first; they share it.
        given: the request as it came, before the environment showed anything.
        opening: what the environment showed first, where that is not the prompt.
        began: when it was reset, on the clock of `time.monotonic`.
        history: see `Runner`.
        dialogue: what was shown and said, once the environment has shown something.
        lent: its environment at the end, for reward functions that ask for it.
        limited: see `cut`.
        last: what its environment is still asked at the end.
    """

    request: Request
    environment: Environment | None
    names: tuple[str, ...] = ()
    answers: bool = True
    segments: list[Segment] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    again: list[Turn] = field(default_factory=list)
    start: int = 0
    said: Message = field(default_factory=dict)
    text: str = ""
    worth: dict[str, float] = field(default_factory=dict)
    tools: Sequence[Mapping[str, Any]] = ()
    status: Status | None = None
    ended: End | None = None
    error: str = ""
    conversation: str = ""
    cast: list[Episode] = field(default_factory=list, repr=False)
    limits: Limits = field(default_factory=Limits)
    opening: tuple[Message, ...] = ()
    began: float = field(default_factory=time.monotonic)
    history: History = "auto"
    dialogue: Conversation | None = field(default=None, repr=False)
    lent: Lent | None = None
    limited: bool = False
    last: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.given = self.request
        self.cast.append(self)

    @property
    def place(self) -> int:
        """Actions so far."""
        return sum(map(len, self.segments))

    def room(self, renderer: Renderer) -> int:
        """Actions that may still follow."""
        limit = renderer.context_length or math.inf
        here = self.place
        most = self.request.max_new_tokens + len(self.request.prefix)
        start, context = self.context.at(here)
        # What a piece's context has grown by counts as what stands between turns does.
        grown = 0 if self.dialogue is None else self.dialogue.grown
        return int(min(most - here, most - grown - (here - start), limit - len(context) - (here - start)))

    @property
    def context(self) -> Context:
        """What it is conditioned on, with all pieces."""
        return self.request.context if self.dialogue is None else self.dialogue.context

    @property
    def actions(self) -> list[int]:
        """All actions so far."""
        return [action for segment in self.segments for action in segment.actions]

    def seed(self) -> int:
        """Of the environment."""
        return derive(self.request.environment_seed, "environment", self.request.prompt.id)

    def begin(self, seen: Observation, renderer: Renderer, system: str | None) -> None:
        """Begin the episode with what the environment shows first.

        Raises:
            EpisodeError: it cannot be shown.
        """
        if seen.agent:
            self.request, self.conversation = replace(self.request, agent=seen.agent), seen.conversation
        self.show(seen, renderer, system)

    def show(self, seen: Observation, renderer: Renderer, system: str | None) -> None:
        """Begin the conversation with what the environment shows.

        Raises:
            EpisodeError: it cannot be shown.
        """
        request, prompt = self.request, self.request.prompt
        self.tools = seen.tools or prompt.tools
        if seen.content == prompt.source and list(self.tools) == list(prompt.tools):
            self._talk(renderer, prompt, prompt.text, system)
            return
        if renderer.context_length is not None and length_of(seen) > renderer.context_length * LONGEST_TOKEN:
            raise EpisodeError(
                f"the environment shows {length_of(seen)} characters, of which the model's context of "
                f"{renderer.context_length} tokens holds {renderer.context_length * LONGEST_TOKEN} at the very most"
            )
        self.opening = tuple(messages_of(seen.content))
        text, tokens = renderer.prompt(*renderer.offer(seen.content, system, self.tools))
        context = Context(tokens)
        # What goes on from inside a rollout stands in its context already.
        if request.parent is not None and request.context.tokens != context.tokens:
            raise EpisodeError(
                "the environment shows something else than it showed the rollout that this one goes on from"
            )
        if request.parent is None and request.context.tokens != prompt.tokens:
            raise EpisodeError(
                "the method's guidance puts something into the prompt, but the environment shows another: leave one of them out"
            )
        if request.parent is None:
            self.request = replace(request, context=context)
        self._talk(renderer, replace(prompt, source=seen.content), text, system)
        room = self.room(renderer)
        if room < 1:
            raise EpisodeError(
                f"the environment shows {len(context)} tokens, and the model takes {renderer.context_length}, answer included"
            )
        self.request = replace(self.request, max_new_tokens=room)

    def _talk(self, renderer: Renderer, prompt: Prompt, text: str, system: str | None) -> None:
        self.dialogue = Conversation(
            renderer, prompt, self.request.context, text, system, self.tools, history=self.history
        )

    def order(self, renderer: Renderer) -> Request:
        """The request for the turn that comes now."""
        most = self.limits.turn_tokens or math.inf
        if len(self.segments) == len(self.request.history) and self.context == self.request.context:
            asked = self.request
            return asked if asked.max_new_tokens <= most else replace(asked, max_new_tokens=int(most))
        return replace(
            self.request,
            context=self.context,
            history=tuple(self.segments),
            seed=derive(self.request.seed, "turn", len(self.turns)),
            max_new_tokens=int(min(self.room(renderer), most)),
        )

    def spoken(self, stops: frozenset[int]) -> bool:
        """The history ends with a turn that one of these tokens ended, and that its environment is still to answer."""
        if not self.answers or self.start == self.place:
            return False
        return self.segments[-1].writer == "policy" and self.actions[-1] in stops

    def drawn(self, segments: Sequence[Segment], text: str, finished: bool, renderer: Renderer) -> None:
        """Take what was drawn for the policy's turn; see `say`."""
        self.segments.extend(segments)
        self.say(text, finished, renderer)

    def say(self, text: str, finished: bool, renderer: Renderer) -> None:
        """Take what the policy said: a message with calls, where something answers these."""
        self.text = text
        self.said = {"role": "assistant", "content": text}
        assert self.dialogue is not None
        if finished and self.answers and self.tools:
            self.said = renderer.message(text, self.tools, self.dialogue.text or self.request.prompt.text)
        self.dialogue.said(self.said, self.actions[self.start :])
        if not finished:
            self.over()
            self.stop("tokens")

    @property
    def late(self) -> bool:
        """Its time is up."""
        return self.limits.seconds is not None and time.monotonic() - self.cast[0].began > self.limits.seconds

    @property
    def cut(self) -> bool:
        """One of the run's limits ended it, and not its environment."""
        return any(each.limited for each in self.cast)

    def stop(self, end: End, *, limited: bool = True) -> None:
        """End it.

        Args:
            limited: where it ends by a limit, that is the run's and not its environment's.
        """
        self.ended = end
        self.limited = limited and end in ("turns", "tokens", "seconds")
        self.status = "failed" if end == "failed" else "finished" if end in ("done", "unparseable") else "truncated"

    def over(self, reward: float | None = None) -> None:
        """The turn that goes on ends."""
        start, context = self.context.at(self.start)
        own = context if start == self.start and self.start else None
        text = None if self.said["content"] == self.text else self.text
        self.turns.append(Turn(self.start, self.place, (self.said,), reward, own, text))

    def take(self, step: Step, seen: Observation | None, renderer: Renderer, system: str | None = None) -> Episode:
        """Take what the environment made of the turn; the conversation that goes on with what it shows next.

        Args:
            seen: what it shows next; None if it is done.

        Raises:
            EpisodeError: it cannot be shown.
        """
        self.count(step)
        self.over(step.reward)
        if seen is None:
            self.stop(step.end, limited=False)
            return self
        spent = self.limits.turns is not None and sum(len(each.turns) for each in self.cast) >= self.limits.turns
        if spent or self.late:
            self.stop("turns" if spent else "seconds")
            return self
        follows = self.speaker(seen)
        if follows.turns:
            follows.hear(seen, renderer)
        else:
            follows.show(seen, renderer, system)
        return follows

    def speaker(self, seen: Observation) -> Episode:
        """The conversation of the agent that speaks next."""
        if not seen.agent:
            return self
        for each in self.cast:
            if (each.request.agent, each.conversation) == (seen.agent, seen.conversation):
                return each
        seed = derive(self.cast[0].request.seed, "agent", seen.agent, seen.conversation)
        given = self.cast[0].given
        own = replace(given, context=Context(given.prompt.tokens), agent=seen.agent, seed=seed)
        return Episode(
            own,
            self.environment,
            self.names,
            self.answers,
            conversation=seen.conversation,
            cast=self.cast,
            limits=self.limits,
            history=self.history,
        )

    def hear(self, seen: Observation, renderer: Renderer) -> None:
        """Take what is shown behind the last turn.

        Raises:
            EpisodeError: it cannot be shown.
        """
        assert self.dialogue is not None
        self.tools = self.dialogue.tools = seen.tools or self.tools
        room = self.room(renderer) if not seen.fresh else renderer.context_length or math.inf
        if length_of(seen) > room * LONGEST_TOKEN:
            self.stop("tokens")
            return
        ids = self.dialogue.heard(seen.content, self.actions, fresh=seen.fresh)
        if self.room(renderer) <= len(ids or ()):
            self.stop("tokens")
            return
        turn = self.turns[-1]
        self.turns[-1] = replace(turn, messages=(*turn.messages, *messages_of(seen.content)))
        if ids is not None:
            self.segments.append(Segment(ids, "environment"))
        self.start = self.place

    def live_again(self, step: Step, seen: Observation | None) -> None:
        """Take what the environment made of a turn of the history, which it must have made of it before.

        Raises:
            EpisodeError: it is another.
        """
        turn = self.again.pop(0)
        if seen is not None and self.speaker(seen) is not self:
            raise EpisodeError("an episode of several agents cannot be gone on from inside")
        if seen is None or tuple(messages_of(seen.content)) != turn.messages[1:]:
            raise EpisodeError(
                "the environment answered differently when an episode of its was lived through again, to go on from inside it: "
                "with the same row, seed and messages it must give the same answers"
            )
        self.count(step)
        self.turns.append(replace(turn, reward=step.reward))
        assert self.dialogue is not None
        self.tools = self.dialogue.tools = seen.tools or self.tools
        self.dialogue.said(turn.messages[0], self.actions[turn.start : turn.end])
        place = self.again[0].start if self.again else self.start
        self.dialogue.heard_again(seen.content, place, fresh=seen.fresh)

    def count(self, step: Step) -> None:
        """Add up what a turn was worth."""
        if self.names:
            for name, value in {**step.components, ENVIRONMENT: step.reward or 0.0}.items():
                self.worth[name] = self.worth.get(name, 0.0) + value
            for each in self.cast:
                if each.request.agent in step.rewards:
                    each.worth[ENVIRONMENT] = each.worth.get(ENVIRONMENT, 0.0) + step.rewards[each.request.agent]

    def fail(self, error: str) -> None:
        """End it for what happened."""
        self.error = error
        self.stop("failed")

    def end(self) -> None:
        """End the other conversations of the episode as this one ended."""
        for each in self.cast:
            each.status, each.ended = each.status or self.status, each.ended or self.ended

    def rollout(self) -> Rollout:
        """What became of it."""
        assert self.status is not None
        failed = self.status == "failed"
        # What a limit cut before its environment had rewarded anything is worth nothing.
        unrewarded = {ENVIRONMENT: 0.0}
        texts = [text for turn in self.turns for text in turn.texts]
        return Rollout(
            self.request,
            tuple(self.segments),
            self.status,
            "\n\n".join(texts),
            name_of(self.request),
            tuple(self.turns),
            self.error,
            {name: None if failed else self.worth.get(name, unrewarded.get(name)) for name in self.names},
            episode=name_of(self.cast[0].request) if len(self.cast) > 1 else "",
            others=tuple(each.rollout() for each in self.cast[1:]) if self is self.cast[0] else (),
            end=self.ended or "" if self.answers else "",
            opening=self.opening,
            environment=self.cast[0].lent,
        )


def name_of(request: Request) -> str:
    """The id of a request's rollout: no two requests of a run have the same seed."""
    return f"{request.seed:016x}"


def length_of(seen: Observation) -> int:
    """Characters that are shown."""
    return sum(len(str(message["content"])) for message in messages_of(seen.content))


def in_texts(seen: Observation) -> Observation:
    """What is shown, with a text as the content of every message: parts of text are joined.

    Raises:
        EpisodeError: there is more than texts to show.
        UsageError: a content that is none.
    """
    if seen.media:
        raise EpisodeError(f"the environment shows {len(seen.media)} media, and the policy reads texts alone")
    if isinstance(seen.content, str) or all(isinstance(message["content"], str) for message in seen.content):
        return seen
    return replace(seen, content=checked(seen.content))


def why(what: str, error: BaseException) -> str:
    """What failed and where, on one line."""
    if isinstance(error, EnvironmentFailed):  # it says where itself
        return f"{what}: {' '.join(str(error).split())[:600]}"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{what}: {shown(error, 300)}{place}"
