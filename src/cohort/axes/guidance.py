"""Guidance axis: what is put into the prompt.

A function takes the step's requests and the tools of the loop, has them drawn and scored (`tools.draw`) in whatever
dress it likes, and returns one scored rollout for every request, in the order of the requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cohort.axes.tools import Tools
from cohort.batch import Message, Prompt, Request, Rollout


def none(requests: Sequence[Request], tools: Tools) -> list[Rollout]:
    """The prompts as they are."""
    return tools.draw(requests)


def question(prompt: Prompt) -> str:
    """What is asked: the whole text, or the content of the last message."""
    return prompt.source if isinstance(prompt.source, str) else str(prompt.source[-1]["content"])


def with_question(prompt: Prompt, text: str) -> str | list[Message]:
    """The prompt's source with its question replaced by `text`."""
    if isinstance(prompt.source, str):
        return text
    return [*prompt.source[:-1], {**prompt.source[-1], "content": text}]


def redress(request: Request, text: str, tools: Tools, *, salt: int = 0, **meta: object) -> Request:
    """The request with its question replaced by `text`, a seed shifted by `salt`, and `meta` added.

    A request that is drawn again within a step needs a salt of its own, or it repeats the noise of the first draw.
    """
    context = tools.render(with_question(request.prompt, text))
    return replace(request, context=context, seed=request.seed + salt, meta={**request.meta, **meta})
