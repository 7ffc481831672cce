"""How much a text tells, by the words that it uses."""

from __future__ import annotations

import math
import re
from collections import Counter

# Letters and digits; everything else parts words, apostrophes and underscores too.
_WORD = re.compile(r"[^\W_]+")


def word_entropy(text: str) -> float:
    """H = -sum_w p_w log2 p_w in bits, p_w the share of word w among the words of the text; 0 of an empty one.

    Source: arXiv:2512.12858.
    """
    counts = Counter(_WORD.findall(text.lower()))
    total = sum(counts.values())
    # Never below 0, as of one word's -1 log 1.
    return max(0.0, -sum(n / total * math.log2(n / total) for n in counts.values()))
