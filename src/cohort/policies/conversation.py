"""A conversation as the policy stands in it: its messages, and the tokens of its context and of its turns.

What was sampled is never rendered again: an answer of the environment stands behind it. That is what a chat template would
have written, too, unless it rewrites what was said before: drops thoughts of earlier turns, trims them, writes calls in
another way, moves the system message. Whether it does is seen by comparing: the template's text of the conversation so far
must begin with the text of the tokens that stand there. Where it does not, the next turn begins a new piece, in the
context that the template writes (see `cohort.types.Context.rebuilt`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cohort.errors import UsageError, shown
from cohort.types import Context, Message, Prompt
from cohort.types.policy import Renderer

# What becomes of a history that the chat template rewrites: "auto", a new piece; "append", nothing, what was sampled stays;
# "rebuild", every turn is a piece of its own, in the context that the template writes.
History = Literal["auto", "append", "rebuild"]
# Characters shown of what a template wrote otherwise.
SHOWN = 60


@dataclass
class Conversation:
    """What a policy was shown and what it said.

    Attributes:
        prompt: what it began with: its `source` is what was shown first.
        context: what the policy is conditioned on, with all pieces.
        text: what the chat template wrote of the conversation up to where the present turn begins; None where that is not
            known.
        system: system message of the run.
        tools: schemas of functions that the policy may call.
        messages: since the conversation last began anew.
        sampled: the same, with the policy's turns of the present piece in the words in which they stand there.
        began: (text, token ids) that it last began with; with guidance in them, the tokens say more than the text.
    """

    renderer: Renderer
    prompt: Prompt
    context: Context
    text: str | None
    system: str | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    history: History = "auto"
    messages: list[Message] = field(default_factory=list)
    sampled: list[Message] = field(default_factory=list)
    began: tuple[str, tuple[int, ...]] = ("", ())

    def __post_init__(self) -> None:
        self._turn: tuple[Message, Sequence[int]] = ({"role": "assistant", "content": ""}, ())
        self._begin(self.prompt.source, self.text or "", self.context.tokens)

    def _begin(self, source: str | list[Message], text: str, tokens: tuple[int, ...]) -> None:
        self.prompt, self.text, self.began = replace(self.prompt, source=source), text, (text, tokens)
        messages = messages_of(source)
        if self.system and not any(message["role"] == "system" for message in messages):
            messages = [{"role": "system", "content": self.system}, *messages]
        if messages[-1]["role"] == "assistant" and not str(messages[-1]["content"]).strip():
            messages = messages[:-1]  # it only asked for the policy to speak
        self.messages, self.sampled = messages, list(messages)

    @property
    def grown(self) -> int:
        """Tokens that the present piece's context has more than the one that the conversation last began with."""
        return len(self.context.at(self.context.last)[1]) - len(self.began[1])

    def said(self, message: Message, turn: Sequence[int]) -> None:
        """Take what the policy said.

        Args:
            turn: its actions.
        """
        self._turn = message, turn

    def _answered(self, answer: list[Message]) -> None:
        """Take the policy's turn and what was said to it into the messages."""
        message, turn = self._turn
        stop = bool(turn) and turn[-1] in self.renderer.stop_ids
        own = turn[:-1] if stop else turn
        # With all special tokens: one that the policy chose is no change that the template made.
        sampled: Message = {"role": "assistant", "content": self.renderer.spell(own)}
        if message.get("call_errors") or (message.get("tool_calls") and not self.renderer.writes_calls):
            message = {"role": "assistant", "content": self.renderer.decode(own)}  # else calls would be lost
        self.messages = [*_with_turn(self.messages, message), *answer]
        self.sampled = [*_with_turn(self.sampled, sampled), *answer]

    def heard(
        self, seen: str | list[Message], actions: Sequence[int], *, fresh: bool = False
    ) -> tuple[int, ...] | None:
        """Take what others say behind the policy's turn.

        Args:
            actions: all of the rollout so far.
            fresh: the conversation begins anew.

        Returns:
            token ids that stand behind the actions; None where a new piece begins.

        Raises:
            UsageError: the renderer does not put it so.
        """
        if fresh:
            text, tokens = self.renderer.prompt(*self.renderer.offer(seen, self.system, self.tools))
            self._begin(seen, text, tokens)
            self._rebuild(len(actions), tokens)
            return None
        answer = messages_of(seen)
        self._answered(answer)
        if self.history != "append":
            tail = None if self.history == "rebuild" else self._agreeing(len(answer))
            if tail is not None:
                return self.renderer.encode(tail)
            written = self._written(self.messages, len(answer)) or self._written(self.sampled, len(answer))
            context = None if written is None else self._context(written)
            if written is not None and context is not None:
                self._tell(written)
                self.text, self.sampled = written, list(self.messages)
                self._rebuild(len(actions), context)
                return None
        self.text = None
        return self.renderer.answer(self.prompt, seen, actions[-1] if actions else None, self.tools)

    def heard_again(self, seen: str | list[Message], place: int, *, fresh: bool = False) -> None:
        """Take an answer that stands in the history already, and behind which the policy spoke at `place`."""
        started, context = self.context.at(place)
        if fresh:
            text, _ = self.renderer.prompt(*self.renderer.offer(seen, self.system, self.tools))
            self._begin(seen, text, context.tokens)
            return
        answer = messages_of(seen)
        self._answered(answer)
        if started == place:
            self.text, self.sampled = self._written(self.messages, len(answer)), list(self.messages)
        elif self._agreeing(len(answer)) is None:
            self.text = None

    def _agreeing(self, new: int) -> str | None:
        """What the template writes behind the turn that was sampled, in the words of the policy or in those that they are read
        as; None if it writes neither as they stand."""
        for messages in [self.sampled] if self.sampled == self.messages else [self.sampled, self.messages]:
            written = self._written(messages, new)
            tail = None if written is None else self._behind(written)
            if tail is not None:
                self.text, self.sampled = written, list(messages)
                return tail
        return None

    def _written(self, messages: Sequence[Message], new: int) -> str | None:
        """The conversation as the chat template writes it; None where there is none, or it does not take it whole."""
        try:
            return self.renderer.written(self.prompt, messages, self.tools, new=new)
        except UsageError:
            return None

    def _behind(self, written: str) -> str | None:
        """What a text says behind what was written before and the turn that was sampled; None if it does not begin so."""
        if self.text is None or not written.startswith(self.text):
            return None
        tail, spoken = written[len(self.text) :], self.renderer.spell(self._turn[1])
        return tail[len(spoken) :] if tail.startswith(spoken) else None

    def _context(self, written: str) -> tuple[int, ...] | None:
        """Token ids of a context with this text; None where guidance that stands in it would be lost."""
        text, tokens = self.began
        if self.renderer.encode(text, start=True, templated=True) == tokens:
            return self.renderer.encode(written, start=True, templated=True)
        return (*tokens, *self.renderer.encode(written[len(text) :])) if written.startswith(text) else None

    def _rebuild(self, place: int, tokens: tuple[int, ...]) -> None:
        self.context = replace(self.context, rebuilt=(*self.context.rebuilt, (place, Context(tokens))))

    def _tell(self, written: str) -> None:
        """Say once that the template rewrites history."""
        if self.history == "rebuild" or self.renderer.told_rewriting:
            return
        self.renderer.told_rewriting = True
        stood = (self.text or "") + self.renderer.spell(self._turn[1])
        at = next((i for i, (a, b) in enumerate(zip(stood, written, strict=False)) if a != b), len(stood))
        warnings.warn(
            "the chat template rewrites what was said in earlier turns: where the policy's tokens say "
            f"{shown(stood[at : at + SHOWN])}, it writes {shown(written[at : at + SHOWN])}. The next turn is sampled and "
            "trained in the context that the template writes; history=append keeps what was sampled in its place",
            RuntimeWarning,
            stacklevel=2,
        )


def messages_of(seen: str | list[Message]) -> list[Message]:
    """What is shown, as messages."""
    return [{"role": "user", "content": seen}] if isinstance(seen, str) else list(seen)


def _with_turn(messages: Sequence[Message], message: Message) -> list[Message]:
    """Messages and what the policy said behind them; where the last one began its turn already, in one message."""
    if messages and messages[-1]["role"] == "assistant":
        begun = str(messages[-1]["content"])
        return [*messages[:-1], {**message, "content": begun + str(message.get("content") or "")}]
    return [*messages, message]
