"""Thoughts and answers in tags: texts that have both, the answer of one, and thoughts that were left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# What stands in place of a thought that is left out: the tags stay.
EMPTY = "\n\n"
ASK = """{question}

The answer is {answer}. Write the reasoning that leads to it, and nothing else."""
_THOUGHT = re.compile(r"<think>(.*?)</think>", re.DOTALL)


def tagged(thought: str, answer: str, tag: str = "answer") -> str:
    """A thought and an answer, each in its tags."""
    return f"<think>{thought}</think><{tag}>{answer}</{tag}>"


def with_dropout(
    thoughts: Sequence[str], answers: Sequence[str], uniform: Tensor, *, dropout: float, tag: str = "answer"
) -> tuple[list[str], list[bool]]:
    """(texts, which of them have an empty thought): thought i is left out where uniform_i < dropout.

    Args:
        uniform: [n] draws from [0, 1), one for each text, drawn once when the data are made.

    Source: arXiv:2505.16854.
    """
    dropped = (uniform < dropout).tolist()
    shown = [EMPTY if out else thought for thought, out in zip(thoughts, dropped, strict=True)]
    return [tagged(thought, answer, tag) for thought, answer in zip(shown, answers, strict=True)], dropped


def first_in_tags(text: str, tag: str = "answer") -> str:
    """What stands in the first pair of tags that opens and closes on one line; the whole text without one."""
    found = re.search(rf"<{tag}>(.*?)</{tag}>", text)
    return (text if found is None else found[1]).strip()


def skips_thought(text: str) -> bool:
    """The thought stands in its tags, and there is nothing in it; False where there are no tags."""
    found = _THOUGHT.search(text)
    return found is not None and not found[1].strip()


def tag_format(tag: str = "answer") -> str:
    """A regular expression that a whole text matches which is a thought and an answer in tags."""
    return rf"\A<think>.*?</think>\s*<{tag}>.*?</{tag}>\Z"
