"""The question of a prompt, and the prompt with another question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from cohort.types import Context, Message, Prompt, Request
from cohort.types.access import Sampler


def _asking(source: Sequence[Message]) -> int:
    """Place of the message that asks: the last one, or the last before what the assistant is to go on with."""
    return next((i for i in reversed(range(len(source))) if source[i]["role"] != "assistant"), len(source) - 1)


def question(prompt: Prompt) -> str:
    """What is asked: the whole text, or the content of the message that asks."""
    source = prompt.source
    return source if isinstance(source, str) else str(source[_asking(source)]["content"])


def with_question(prompt: Prompt, text: str) -> str | list[Message]:
    """The prompt's source with its question replaced by `text`."""
    source = prompt.source
    if isinstance(source, str):
        return text
    at = _asking(source)
    return [*source[:at], {**source[at], "content": text}, *source[at + 1 :]]


def rendered(prompt: Prompt, text: str, render: Callable[..., tuple[int, ...]]) -> tuple[int, ...]:
    """Context token ids of the prompt with its question replaced by `text`."""
    source = with_question(prompt, text)
    return render(source, prompt.tools) if prompt.tools else render(source)


def rewrite_question(request: Request, text: str, sampler: Sampler, *, salt: int = 0, **meta: object) -> Request:
    """The request with its question replaced by `text`, a seed shifted by `salt`, and `meta` added.

    A request that is drawn again within a step needs a salt of its own, or it repeats the noise of the first draw.
    """
    context = rendered(request.prompt, text, sampler.render)
    return replace(request, context=Context(context), seed=request.seed + salt, meta={**request.meta, **meta})
