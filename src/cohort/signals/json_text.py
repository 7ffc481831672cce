"""JSON in a completion: what is read as such, and how far it is what was asked for."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

_FENCE = re.compile(r"```(?:json)?[ \t]*\n", re.IGNORECASE)
_MARK = re.compile(r"^[ \t]*```", re.MULTILINE)


class Nothing:
    """Stands for what is no JSON: null is a value of it."""


NOTHING = Nothing()


def inside_fence(text: str) -> str | None:
    """What a fence of ``` or ```json lines around the whole text encloses; None without one."""
    text = text.strip()
    opened = _FENCE.match(text)
    return None if opened is None or not text[opened.end() :].endswith("```") else text[opened.end() : -3]


def read_json(text: str) -> Any:
    """The value of a text that is JSON, or a fence around it; NOTHING of another text. NaN and Infinity are no JSON."""
    inside = inside_fence(text)
    try:
        return json.loads(text if inside is None else inside, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return NOTHING


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def is_bare(text: str) -> bool:
    """The text begins with { and ends with }, with nothing around them; what is between may be anything."""
    text = text.strip()
    return text.startswith("{") and text.endswith("}")


def is_fenced(text: str) -> bool:
    """The text is one fence, with nothing around it."""
    inside = inside_fence(text)
    return inside is not None and _MARK.search(inside) is None


def keys_present(value: Any, required: Sequence[str]) -> float:
    """Share of the required keys that an object has at its top; 1 if none is required, 0 of what is no object."""
    if not isinstance(value, Mapping):
        return 0.0
    return sum(key in value for key in required) / len(required) if required else 1.0


def as_text(value: Any) -> str:
    """A text as it is, another value as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def word_overlap(said: str, wanted: str) -> float:
    """Token F1: 2 common / (words said + words wanted), without case, words between white space, each as often as it is there.

    1 if neither has a word.
    """
    mine, theirs = Counter(said.lower().split()), Counter(wanted.lower().split())
    count = mine.total() + theirs.total()
    return 2 * (mine & theirs).total() / count if count else 1.0


def fields_overlap(value: Any, reference: Mapping[str, Any]) -> float:
    """Mean over the reference's fields of the words that an object's field shares with it; 0 of what is no object."""
    if not isinstance(value, Mapping) or not reference:
        return 0.0
    shares = [word_overlap(as_text(value[k]), as_text(v)) if k in value else 0.0 for k, v in reference.items()]
    return sum(shares) / len(shares)


def same(value: Any, reference: Any) -> bool:
    """Two values of JSON are equal: objects whatever the order of keys, numbers however they are written."""
    if isinstance(value, bool) or isinstance(reference, bool):
        return value is reference
    if isinstance(value, Mapping) and isinstance(reference, Mapping):
        return value.keys() == reference.keys() and all(same(value[k], v) for k, v in reference.items())
    if isinstance(value, list) and isinstance(reference, list):
        return len(value) == len(reference) and all(map(same, value, reference))
    return bool(value == reference)


def fields_equal(value: Any, reference: Any) -> float:
    """Share of an object's fields, its own and the reference's, that are equal in both; of another value 1 if it is equal."""
    if not isinstance(value, Mapping) or not isinstance(reference, Mapping):
        return float(same(value, reference))
    names = value.keys() | reference.keys()
    hit = sum(k in value and k in reference and same(value[k], reference[k]) for k in names)
    return hit / len(names) if names else 1.0
