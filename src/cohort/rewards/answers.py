"""Finding the final answer in a completion."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

_TAG = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.DOTALL)
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
# A minus sign belongs to the number only where nothing stands before it that it could be subtracted from.
_NUMBER = re.compile(rf"(?:(?<![\w.)])-)?\$?(?:{_DIGITS})")
# Commas that separate thousands; those of a list, as in 3,5,7, are not left out.
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")


def boxed(text: str) -> str | None:
    """Content of the last \\boxed{...}, braces balanced; None if there is none."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for i in range(start + len("\\boxed"), len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return text[start + len("\\boxed{") : i].strip()
    return None


def marked(text: str) -> str | None:
    """The answer that the text marks as such: <answer> tags, else \\boxed{}, else what follows the last ####."""
    tags = _TAG.findall(text)
    if tags:
        return str(tags[-1])
    in_box = boxed(text)
    if in_box is not None:
        return in_box
    if "####" in text:
        return text.rsplit("####", 1)[1].strip()
    return None


def final_answer(text: str) -> str:
    """The marked answer, or the whole text where nothing is marked."""
    found = marked(text)
    return text.strip() if found is None else found


def last_number(text: str) -> Decimal | None:
    """The last number in the text; thousands commas and a dollar sign are left out."""
    found = _NUMBER.findall(text)
    return number(found[-1]) if found else None


def number(text: str) -> Decimal | None:
    """The number that a text is; None if it is none, or several."""
    text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text.strip().replace("$", "").rstrip("."))
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def plain(value: Decimal) -> str:
    """A number without exponent, trailing zeros or a sign of zero."""
    # Not `normalize`, which rounds to the digits of the context.
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def answer_key(text: str) -> str | None:
    """A string by which equal final answers are equal: the number of a numeric answer, else the marked text.

    None where the text marks no answer and holds no number.
    """
    found = marked(text)
    # Of a marked answer such as \frac{1}{2}, the last number says too little.
    value = last_number(text) if found is None else number(found)
    if value is not None:
        return plain(value)
    return " ".join(found.split()) if found else None


def repeats(answer: str, question: str, share: float = 0.8) -> bool:
    """The answer stands in the question, or more than a share of its words do in the same order (ROUGE-L precision)."""
    mine, theirs = (re.findall(r"\w+", text.lower()) for text in (answer, question))
    # Longest common subsequence of the words so far and the first k words of the question.
    longest = [0] * (len(theirs) + 1)
    for word in mine:
        before, longest = longest, [0]
        for k, other in enumerate(theirs):
            longest.append(before[k] + 1 if word == other else max(before[k + 1], longest[k]))
    return bool(answer) and (answer in question or longest[-1] > share * len(mine))
