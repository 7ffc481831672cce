"""Multiple choice in a report: the boxed letter, the sections, and the language. Source: arXiv:2512.00601, official code."""

from __future__ import annotations

import re

from cohort.signals.answers import cut

# Content up to the first brace on the same line: braces are not balanced here.
_BOX = re.compile(r"\\boxed\{([^}\n]*)\}")
_FOREIGN = re.compile(r"""[^a-zA-Z0-9 \n.,!?;:'"()\[\]{}<>\-_/\\|`~@#$%^&*+=]""")


def report(text: str) -> str:
    """A completion up to the end of the turn, without white space around it; <\\tag> is read as </tag>."""
    return re.sub(r"<\\(?=\w+>)", "</", cut(text)).strip()


def boxed_letter(text: str, gold: str) -> float:
    """1 if the only box holds the gold letter, 0 for another capital letter or no box.

    n boxes give -n, so that hedging costs more than being wrong; one that cannot be read -1, one that holds anything else
    than a capital letter -0.5.
    """
    text = report(text)
    count = text.count("\\boxed")
    if count != 1:
        return -float(count)
    found = _BOX.search(text)
    if found is None:
        return -1.0
    if not re.fullmatch(r"[A-Z]", found[1]):
        return -0.5
    return float(found[1] == gold)


def in_sections(text: str, first: str = "think", second: str = "answer") -> float:
    """1 if the text is <first>...</first><second>...</second> and nothing else, and 0.5 more if the second part holds one
    box and something beside it; else 0."""
    found = re.fullmatch(
        rf"<{re.escape(first)}>.*?</{re.escape(first)}>\s*<{re.escape(second)}>(.*)</{re.escape(second)}>",
        report(text),
        re.DOTALL,
    )
    if found is None:
        return 0.0
    summarised = len(_BOX.findall(found[1])) == 1 and bool(_BOX.sub("", found[1]).strip())
    return 1.5 if summarised else 1.0


def english_share(text: str) -> float:
    """Share of the characters that are ASCII letters, digits, space, line break or common punctuation; 0 for an empty text."""
    text = report(text)
    return 1 - len(_FOREIGN.findall(text)) / len(text) if text else 0.0
