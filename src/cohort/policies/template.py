"""Chat templates of tokenizers: messages rendered, or refused with what to do, and what they put around a turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cohort.errors import UsageError, shown
from cohort.types import Message

# Stand for a message's content, to see what a template does with it.
MARK = "Qzx{}xzQ"
# Characters that do not stand in a text by chance.
LONG = 24


@dataclass(frozen=True)
class Turn:
    """What a chat template puts around what is said.

    Attributes:
        end: id of the token that ends the assistant's turn; None if no token of its own does.
        frame: ids of the special tokens around turns.
    """

    end: int | None = None
    frame: frozenset[int] = frozenset()


def render_chat(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], of: str, *, new: int | None = None
) -> str:
    """Messages through the chat template, up to where the assistant goes on: after its own last message, if that is the
    last of all, or at the beginning of the next.

    Args:
        new: of the messages, the last ones that must stand in the text; None: all.

    Raises:
        UsageError: the template refuses the messages, or leaves one out; or the last one cannot be gone on with.
    """
    last = messages[-1]
    goes_on = last["role"] == "assistant"
    if goes_on and (last.get("tool_calls") or last.get("function_call")):
        raise UsageError(
            f"message {len(messages)}, the last one, is the assistant's and calls tools, after which nothing is the "
            "assistant's to say: end with the tool's answer, or with a user's message"
        )
    if goes_on and not str(last["content"]).strip():
        # An empty one only asks for the assistant to speak.
        messages, goes_on = messages[:-1], False
    if not messages:
        raise UsageError("the only message is the assistant's, and empty: begin with a user's message")
    text = _rendered(tokenizer, messages, tools, of, goes_on)
    _all_shown(tokenizer, messages, tools, text, of, since=0 if new is None else len(messages) - new)
    if not goes_on:
        return text
    said = str(last["content"])
    rest = said[len(said.rstrip()) :]
    # Templates that trim what is said mean whole messages.
    return text if not rest or text.endswith(said) else text + rest


def between(tokenizer: Any, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], of: str) -> str:
    """What the chat template puts behind what the assistant said, up to where it speaks again: the end of its turn, and
    messages of others.

    Raises:
        UsageError: the template refuses the messages, or leaves one out.
    """
    asked, said = MARK.format("user"), MARK.format("assistant")
    before: list[Message] = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    try:
        text = _rendered(tokenizer, [*before, *messages], tools, of, goes_on=False)
        _all_shown(tokenizer, [*before, *messages], tools, text, of)
        _, found, behind = text.partition(said)
        if not found:
            raise UsageError(
                f"the chat template of {of} changes what the assistant said, so that nothing can be put behind that as it "
                "was sampled: use history=rebuild, without guidance in the prompt, or another template"
            )
        return behind
    except UsageError:
        behind_calls = _behind_calls(tokenizer, messages, tools)
        if behind_calls is None:
            raise
        return behind_calls


def _behind_calls(tokenizer: Any, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> str | None:
    """The same for results of tools, by templates that show them only behind their calls; None if that does not help."""
    told = [message for message in messages if message["role"] == "tool"]
    calls = [
        {
            "type": "function",
            "id": message.get("tool_call_id", f"call{i:05d}"),
            "function": {"name": message.get("name") or MARK.format("name"), "arguments": {}},
        }
        for i, message in enumerate(told)
    ]
    asked = {"role": "user", "content": MARK.format("user")}
    before: list[Message] = [asked, {"role": "assistant", "content": "", "tool_calls": calls}]
    try:
        head = _apply(tokenizer, before, tools, None)
        text = _apply(tokenizer, [*before, *messages], tools, False)
        _all_shown(tokenizer, [*before, *messages], tools, text, "")
    except Exception:
        return None
    return text.removeprefix(head) if calls and text.startswith(head) else None


def takes_system(tokenizer: Any) -> bool:
    """True if the chat template shows a system message."""
    said: list[Message] = [{"role": role, "content": MARK.format(role)} for role in ("system", "user")]
    try:
        return MARK.format("system") in _apply(tokenizer, said, (), False)
    except Exception:
        return False


def _apply(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], goes_on: bool | None
) -> str:
    """Messages through the template; `goes_on` None: they end there."""
    text = tokenizer.apply_chat_template(
        list(messages),
        tools=list(tools) or None,
        tokenize=False,
        add_generation_prompt=goes_on is False,
        continue_final_message=bool(goes_on),
    )
    return str(text)


def _rendered(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], of: str, goes_on: bool
) -> str:
    from jinja2 import TemplateSyntaxError

    try:
        return _apply(tokenizer, messages, tools, goes_on)
    except TemplateSyntaxError as error:
        raise UsageError(
            f"the chat template of {of} is malformed (line {error.lineno}: {shown(str(error.message))}): mend it in "
            "the model's folder, or give plain texts with prompt_format=text"
        ) from error
    except Exception as error:
        # A template is a program that came with the model: it may raise anything.
        said = shown((str(error).strip() or "no reason given").split("\n")[0])
        reason = f"the chat template of {of} does not take these messages ({type(error).__name__}: {said})"
        others = [message for message in messages if message["role"] != "system"]
        if others and len(others) < len(messages) and _works(tokenizer, others, tools, goes_on):
            raise UsageError(
                f"{reason}: it has no system role; put the text into --template, or into a user's message"
            ) from error
        roles = ", ".join(message["role"] for message in messages)
        raise UsageError(f"{reason}; the roles are {roles}") from error


def _works(tokenizer: Any, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], goes_on: bool) -> bool:
    try:
        return bool(_apply(tokenizer, messages, tools, goes_on))
    except Exception:
        return False


def _all_shown(
    tokenizer: Any, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], text: str, of: str, since: int = 0
) -> None:
    """Templates leave out roles that they do not know, without a word.

    Raises:
        UsageError: this one leaves out a message, of those from `since` on.
    """
    said = [i for i, message in enumerate(messages) if i >= since and str(message["content"]).strip()]
    if all(_stands(messages[i], text) for i in said):
        return
    marked = [{**message, "content": MARK.format(i)} if i in said else message for i, message in enumerate(messages)]
    try:
        probe = _apply(tokenizer, marked, tools, False).casefold()
    except Exception:
        return  # it looks into what is said, and took what was
    for i in said:
        if MARK.format(i).casefold() not in probe:
            role = messages[i]["role"]
            advice = (
                "it has no system role; put the text into --template, or into a user's message"
                if role == "system"
                else "it does not know the role there; use one that it knows, such as user or assistant"
            )
            raise UsageError(f"the chat template of {of} leaves out message {i + 1} ({role}): {advice}")


def _stands(message: Message, text: str) -> bool:
    """True if a message is in the text for certain: short ones can stand there by chance."""
    said = str(message["content"]).strip()
    return said in text and (message["role"] in ("user", "assistant") or len(said) > LONG)


def turn_of(tokenizer: Any) -> Turn:
    """What the chat template of a tokenizer puts around turns, found by trying; nothing where it takes no such messages."""
    if not getattr(tokenizer, "chat_template", None):
        return Turn()
    said = [{"role": role, "content": MARK.format(role)} for role in ("system", "user", "assistant")]
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}
    frame: set[int] = set()
    end = None
    for messages, open_ in ((said[:2], True), (said[1:2], True), (said[1:], False)):
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=open_)
        except Exception:
            continue  # what it does take, it refuses with a reason when it comes to that
        frame |= special & set(tokenizer(text, add_special_tokens=False)["input_ids"])
        _, found, behind = text.rpartition(MARK.format("assistant"))
        if found:
            ids = tokenizer(behind, add_special_tokens=False)["input_ids"]
            # Runs of spaces can be added tokens, too.
            ends = (i for i in ids if i in special or (i in added and added[i].content.strip()))
            end = next(ends, None)
    return Turn(end, frozenset(frame))
