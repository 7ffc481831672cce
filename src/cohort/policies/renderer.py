"""Text as the tokens of a model: prompts through its chat template, what follows them, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from cohort.errors import UsageError, shown
from cohort.policies.calls import (
    PLAIN,
    PLAIN_CALL,
    Format,
    Tools,
    described,
    format_of,
    parsed,
    results,
    without_thoughts,
)
from cohort.policies.pieces import UNREADABLE, Decoder, Pieces, special_tokens
from cohort.policies.template import Turn, between, render_chat, takes_system, turn_of
from cohort.types import Message, Prompt

PromptFormat = Literal["auto", "chat", "text"]
# Put before a text to encode it as it stands behind others; a text that would melt into one of them takes the next.
ANCHORS = ("\n", "a", "0", ".")


class TextRenderer:
    """Text as the tokens of a model, and back.

    Attributes:
        tokenizer: of transformers, or None where only token ids are used.
        name: of the model, for messages.
        rows: token ids that the model has an embedding for are 0 to rows - 1.
        prompt_format: what becomes of prompts that are plain texts: "text" gives them as they are, "chat" through the chat
            template, "auto" through the template if there is one. Messages always go through it.
        special_tokens: special tokens that stand in the text of completions: "content" (those that do not end or pad a
            text, nor frame a turn of the template), "all", "none", or their names.
        context_length: most tokens of context and completion together; None if the model has no limit.
        stop_ids: tokens that end a completion.
        told_rewriting: it was said that the chat template rewrites what was said before.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        rows: int,
        name: str = "",
        bos: bool = False,
        prompt_format: PromptFormat = "auto",
        special_tokens: str | Sequence[str] = "content",
        ends: Sequence[int] = (),
        context_length: int | None = None,
    ) -> None:
        self.tokenizer, self.rows, self.name, self.bos = tokenizer, rows, name, bos
        self.prompt_format: PromptFormat = prompt_format
        self.special_tokens = special_tokens
        self.context_length = context_length
        self.told_rewriting = False
        of = name or "the model"
        if bos and getattr(tokenizer, "bos_token_id", None) is None:
            raise UsageError(f"--bos: the tokenizer of {of} has no beginning-of-sequence token")
        if prompt_format == "chat" and not self.has_template:
            raise UsageError(f"prompt_format is chat, but the tokenizer of {of} has no chat template: use text or auto")
        own = getattr(tokenizer, "eos_token_id", None)
        self.ends = frozenset([*ends, *([] if own is None else [own])])
        self.stop_ids: frozenset[int] = self.ends if self.turn.end is None else self.ends | {self.turn.end}

    # prompts -------------------------------------------------------------------------------------------------------

    @property
    def has_template(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))

    def templated(self, source: str | Sequence[Message]) -> bool:
        """True if such a prompt goes through the chat template."""
        return self.has_template and not (isinstance(source, str) and self.prompt_format == "text")

    def render(
        self, source: str | list[Message], system: str | None = None, tools: Sequence[Mapping[str, Any]] = ()
    ) -> str:
        """The text that the policy is conditioned on: through the chat template, or plain.

        Args:
            tools: schemas of functions, for templates that show them.

        Raises:
            UsageError: the chat template refuses the messages, or leaves one of them out.
        """
        messages = [{"role": "user", "content": source}] if isinstance(source, str) else list(source)
        if system and not any(m["role"] == "system" for m in messages):
            messages = [{"role": "system", "content": system}, *messages]
        if self.templated(source):
            return render_chat(self.tokenizer, messages, tools, self.name or "the model")
        return self._joined(messages)

    def offer(
        self, source: str | list[Message], system: str | None, tools: Tools
    ) -> tuple[str | list[Message], str | None, Tools]:
        """What `render` is given to show functions that the policy may call: where the chat template writes no calls, nor
        speaks of <call>, the system message describes them (`cohort.policies.calls.described`), or the first message where
        there is none."""
        if not tools or self.writes_calls or PLAIN_CALL in self._template:
            return source, system, tools
        text = described(tools)
        if isinstance(source, str) and not self.templated(source):
            return source, f"{system}\n\n{text}" if system else text, ()
        messages = [{"role": "user", "content": source}] if isinstance(source, str) else list(source)
        if messages[0]["role"] == "system":
            system, messages = str(messages[0]["content"]), messages[1:]
        text = f"{system}\n\n{text}" if system else text
        if takes_system(self.tokenizer):
            return [{"role": "system", "content": text}, *messages], None, ()
        first = {**messages[0], "content": f"{text}\n\n{messages[0]['content']}"}
        return [first, *messages[1:]], None, ()

    def _joined(self, messages: Sequence[Message]) -> str:
        """Messages where there is no chat template."""
        for i, message in enumerate(messages, 1):
            if message.get("tool_calls") or message.get("function_call"):
                raise UsageError(
                    f"message {i} ({message['role']}) calls tools, which only a chat template can write, and the tokenizer of "
                    f"{self.name or 'the model'} has none"
                )
        return "\n\n".join(str(m["content"]) for m in messages)

    def prompt(
        self, source: str | list[Message], system: str | None = None, tools: Sequence[Mapping[str, Any]] = ()
    ) -> tuple[str, tuple[int, ...]]:
        """(text, token ids) of a prompt.

        Raises:
            UsageError: see `render` and `encode`.
        """
        text = self.render(source, system, tools)
        return text, self.encode(text, start=True, templated=self.templated(source))

    def encode(self, text: str, *, start: bool = False, templated: bool | None = None) -> tuple[int, ...]:
        """Token ids of a text as it stands behind others; with `start`, as the beginning of a sequence.

        Args:
            templated: the text is what a chat template made, which writes its special tokens itself; None: if there is one.

        Raises:
            UsageError: what is no text (half a surrogate pair), or a token that the model has no row for.
        """
        if not start:
            return self._known(self._inside(text), text)
        ids = self._ids(text)
        templated = self.has_template and self.prompt_format != "text" if templated is None else templated
        if not templated and not (self._before and ids[: len(self._before)] == self._before):
            ids = [*self._before, *ids]
        if self.bos and (not ids or ids[0] != self.tokenizer.bos_token_id):
            ids = [self.tokenizer.bos_token_id, *ids]
        return self._known(ids, text)

    def encode_completion(self, prompt: Prompt | None, text: str, *, end: bool = False) -> tuple[int, ...]:
        """Token ids of a text behind a prompt: those that prompt and text have together, where they begin with the prompt's.

        Args:
            prompt: None for any text.
            end: with the token that ends a turn of the chat template, or a text, after it.
        """
        templated = self.templated("" if prompt is None else prompt.source)
        whole: tuple[int, ...] = ()
        if prompt is not None:
            whole = self.encode(prompt.text + text, start=True, templated=templated)
        start = len(prompt.tokens) if prompt is not None else 0
        joint = prompt is not None and whole[:start] == prompt.tokens
        ids = whole[start:] if joint else self.encode(text)
        last = self._end(templated) if end else None
        return ids if last is None or (ids and ids[-1] in self.stop_ids) else (*ids, last)

    def answer(
        self,
        prompt: Prompt,
        said: str | Sequence[Message],
        last: int | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> tuple[int, ...]:
        """Token ids of what others say behind the policy's turn, up to where it speaks again.

        Args:
            prompt: what the conversation began with; see `templated`.
            said: messages, or a text: a user's message where a template stands around it, and else the text as it is.
            last: the last token of the turn; a token that ends it is not put there twice.

        Raises:
            UsageError: the template refuses the messages or leaves one out, or there is none for those that need one.
        """
        if not self.writes_calls:
            said, tools = said if isinstance(said, str) else results(said), ()
        if not self.templated(prompt.source):
            return self.encode(said if isinstance(said, str) else "\n\n" + self._joined(said))
        messages = [{"role": "user", "content": said}] if isinstance(said, str) else list(said)
        ids = self.encode(between(self.tokenizer, messages, tools, self.name or "the model"))
        end = self.turn.end
        if end is None or last != end or end not in ids:
            return ids
        return ids[ids.index(end) + 1 :]

    def written(
        self, prompt: Prompt, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), *, new: int = 0
    ) -> str | None:
        """A whole conversation as the chat template writes it, up to where the policy speaks; None where none does.

        Args:
            prompt: what the conversation began with; see `templated`.
            new: of the messages, the last ones that must stand in the text; a template may leave out others.

        Raises:
            UsageError: the template refuses the messages, or leaves out a new one.
        """
        if not self.templated(prompt.source):
            return None
        if not self.writes_calls:
            offered, _, tools = self.offer(list(messages), None, tools)
            messages = results([{"role": "user", "content": offered}] if isinstance(offered, str) else offered)
        return render_chat(self.tokenizer, messages, tools, self.name or "the model", new=new)

    def _end(self, templated: bool) -> int | None:
        """The token that ends a completion; None if nothing is known to."""
        if templated and self.turn.end is not None:
            return self.turn.end
        own = getattr(self.tokenizer, "eos_token_id", None)
        return own if own is not None else min(self.ends, default=None)

    @cached_property
    def turn(self) -> Turn:
        """What the chat template puts around turns."""
        return turn_of(self.tokenizer)

    # completions ---------------------------------------------------------------------------------------------------

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of completion tokens as it stands behind others, without `special_ids`.

        A character that was cut off at the end is U+FFFD.
        """
        said = [token for token in tokens if token not in self.special_ids]
        text = self.spell(said)
        if text.endswith(UNREADABLE):
            # Of bytes that are no text together, some decoders show none, also where the first ones were whole characters.
            heads = (self.spell(said[:-cut]) for cut in range(1, min(4, len(said))))
            head = next((head for head in heads if not head.endswith(UNREADABLE)), "")
            text = f"{head}{UNREADABLE}" if len(head) > len(text.rstrip(UNREADABLE)) else text
        return text

    def message(self, text: str, tools: Tools = (), before: str = "") -> Message:
        """What the policy said in a turn, as a message of the assistant's.

        Its `content` is what it said beside its calls. `tool_calls` are those that can be read; `call_errors` says, one text
        a call, what is wrong with the others. What was thought before `</think>` is its `reasoning_content`.

        Args:
            text: all of the turn.
            tools: schemas of the functions that can be called.
            before: what the policy was shown, for tokenizers that read their own responses (`response_template`).
        """
        if getattr(self.tokenizer, "response_template", None) is not None:
            return parsed(self.tokenizer, text, tools, before)
        thought, said = without_thoughts(text) if "</think>" in self._template else (None, text)
        message = self.calls.message(said, tools)
        return message if thought is None else {**message, "reasoning_content": thought}

    @cached_property
    def calls(self) -> Format:
        """How the model writes tool calls."""
        return format_of(self._template)

    @property
    def writes_calls(self) -> bool:
        """True if the chat template writes tool calls; otherwise they stand in the text of messages."""
        return self.calls is not PLAIN

    @property
    def _template(self) -> str:
        """Text of the chat template, of all of them where there are several; empty without one."""
        held = getattr(self.tokenizer, "chat_template", None) or ""
        return "\n".join(map(str, held.values())) if isinstance(held, dict) else str(held)

    def whole(self, tokens: Sequence[int]) -> str:
        """Text of a sequence from its beginning, with all special tokens."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    @cached_property
    def spell(self) -> Decoder:
        """Text of tokens, with all special ones."""
        return Decoder(self.tokenizer)

    @property
    def pieces(self) -> Pieces | None:
        """Texts of single tokens; None without a tokenizer."""
        return None if self.tokenizer is None else Pieces(self.tokenizer)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Tokens that `decode` leaves out."""
        known = special_tokens(self.tokenizer)
        # Rows of the embedding that the tokenizer has no token for have no text either.
        nothing = frozenset(range(max(self.tokenizer.get_vocab().values()) + 1, self.rows))
        if not isinstance(self.special_tokens, str):
            return nothing | {i for i, text in known.items() if text not in self.special_tokens}
        if self.special_tokens == "all":
            return nothing
        if self.special_tokens == "none":
            return nothing | frozenset(known)
        named = {self.tokenizer.convert_tokens_to_ids(text) for text in named_tokens(self.tokenizer)}
        # What opens and closes a stretch of a completion is its content, also where the template opens it.
        tags = {i for i, text in known.items() if _partner(text) in known.values()}
        return nothing | (frozenset(known) & (named | self.stop_ids | (self.turn.frame - tags)))

    def check_tokens(self) -> None:
        """The tokens that end a rollout or begin a prompt are the model's, and those asked to be seen the tokenizer's.

        Raises:
            UsageError: one is not.
        """
        begin = [self.tokenizer.bos_token_id] if self.bos else []
        for token in sorted({*self.stop_ids, *begin}):
            if not 0 <= token < self.rows:
                raise UsageError(self.beyond(token))
        known = special_tokens(self.tokenizer).values()
        for text in [] if isinstance(self.special_tokens, str) else self.special_tokens:
            if text not in known:
                raise UsageError(
                    f"special_tokens: {text!r} is no special token of {self.name or 'the model'}, which has "
                    f"{', '.join(known) or 'none'}"
                )

    def only(self, text: str) -> int | None:
        """The id of a special token with this text; None if there is none."""
        return next((i for i, name in special_tokens(self.tokenizer).items() if name == text), None)

    # the tokenizer -------------------------------------------------------------------------------------------------

    def _ids(self, text: str) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"the text has half of a surrogate pair (U+{ord(text[error.start]):04X}, character {error.start + 1}), which "
                "is no character: mend the text, or leave it out"
            ) from error
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _inside(self, text: str) -> list[int]:
        """Token ids without the space mark that some tokenizers put before every text."""
        ids = self._ids(text)
        if self.spell(ids) == text:
            return ids
        tried = []
        for anchor in ANCHORS:
            head, whole = self._ids(anchor), self._ids(anchor + text)
            if head and whole[: len(head)] == head:
                tried.append(whole[len(head) :])
        return next((each for each in tried if self.spell(each) == text), tried[0] if tried else ids)

    @cached_property
    def _before(self) -> list[int]:
        """What the tokenizer puts before a text. What it puts behind one has no place behind a prompt, that goes on."""
        alone, dressed = self._ids("a"), list(self.tokenizer("a")["input_ids"])
        places = (at for at in range(len(dressed)) if dressed[at : at + len(alone)] == alone)
        return dressed[: next(places, 0)]

    def _known(self, ids: Sequence[int], text: str) -> tuple[int, ...]:
        if ids and max(ids) >= self.rows:
            token = next(i for i in ids if i >= self.rows)
            raise UsageError(f"{self.beyond(token)} (in the text {shown(text)})")
        return tuple(ids)

    def beyond(self, token: int) -> str:
        """What is wrong with a token that the model has no row for."""
        named = self.tokenizer.convert_ids_to_tokens(token)
        return (
            f"token {named} (id {token}) is not among those of {self.name or 'the model'}, which has ids 0 to {self.rows - 1}: "
            "its tokenizer is larger than its embedding; take the tokenizer that belongs to it, or make the embedding larger "
            "(model.resize_token_embeddings) and train the new rows first"
        )


def named_tokens(tokenizer: Any) -> list[str]:
    """Texts of the tokens with a part of their own: that begin, end or pad a text, or stand for what is unknown."""
    held = [getattr(tokenizer, f"{part}_token", None) for part in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")]
    return [str(each) for each in held if each is not None]


def _partner(text: str) -> str | None:
    """`</x>` of `<x>`, and the other way round."""
    if text.startswith("</") and text.endswith(">"):
        return f"<{text[2:]}"
    return f"</{text[1:]}" if text.startswith("<") and text.endswith(">") else None
