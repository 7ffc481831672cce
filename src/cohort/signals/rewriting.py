"""Questions rewritten without changing their answers: what a language model is asked, and what it said."""

from __future__ import annotations

import re

TASK = """Rewrite the question below. {how} The answer to the rewritten question must be the same as that of the original one:
{answer}

Question:
{question}

Write the rewritten question, without its answer, between <question> and </question>."""
# Source: multi-aspect question reformulation, arXiv:2601.20614.
ASPECTS = {
    "background": "Wrap it in a story that has little to do with it, or in a more complex one, which keeps every number and "
    "every condition.",
    "term": "Define a new abstract mathematical term for the idea in its centre, and ask the question in that term.",
    "sub-problem": "Take a number that is a key condition of it, and put in its place a small problem of its own, the answer "
    "of which is that number.",
}
_SAID = re.compile(r"<question>(.*?)</question>", re.DOTALL)


def task(aspect: str, question: str, answer: str) -> str:
    """What a language model is asked."""
    return TASK.format(how=ASPECTS[aspect], question=question, answer=answer)


def rewritten(said: str, question: str) -> str | None:
    """The rewritten question of an answer, the last if there are several; None where there is none, or it is the old one."""
    found = [text.strip() for text in _SAID.findall(said)]
    return found[-1] if found and found[-1] and found[-1].split() != question.split() else None
