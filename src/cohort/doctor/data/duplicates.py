"""Held-out prompts that are trained on, and prompts that stand in the data more than once."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

from cohort.doctor.dataset import Data, named, normal
from cohort.doctor.finding import Evidence, Seen, Severity, Try, diagnosis
from cohort.doctor.measures import percent

_WORDS = 5  # of a shingle
_LEAST = 12  # words of a prompt from which nearness means something


@diagnosis(
    Try("remove them from the training data, or hold out other data", settings=("data", "eval_data")),
    Try("keep each prompt once", settings=("data",)),
)
def duplicates(data: Data) -> Seen | None:
    """Held-out prompts also stand in the training data, or training prompts stand there several times.

    Threshold: any prompt that is in both, without regard to case and spacing. Near duplicates count too: of 12 words or
    more, with the same numbers and 80 % of the runs of five words in common. An alarm from 1 % of the held-out prompts,
    if they are not equal to the letter: those that are, `cohort train` leaves out of training, if both are given to it.
    Repeats in the training data are a note from 1 % of the rows.
    Meaning: accuracy on such prompts measures memory: it is too high, and rises with training whatever is learnt.
    Source: on contamination, GPT-3, arXiv:2005.14165 (appendix C); the thresholds are our choice
    """
    evidence = []
    repeated = len(data.normal) - len(set(data.normal))
    shared: list[int] = []
    near: list[int] = []
    same = 0
    if data.held_out:
        known, index, letters = set(data.normal), _Near(data.normal), set(data.prompts)
        same = sum(text in letters for text in data.held_out)
        for i, text in enumerate(map(normal, data.held_out), 1):
            (shared if text in known else near if index.has(text) else []).append(i)
    held = len(data.held_out or ())
    if shared:
        rows = named(shared, data.held_rows)
        text = f"{len(shared)} of {held} held-out prompts are trained on ({same} to the letter): {rows} of it"
        evidence.append(Evidence(text, (), {"shared": float(len(shared))}))
    if near:
        text = f"{len(near)} of {held} held-out prompts nearly are: {named(near, data.held_rows)} of it"
        evidence.append(Evidence(text, (), {"near": float(len(near))}))
    if repeated >= max(1, 0.01 * len(data.rows)):
        text = f"{repeated} of {len(data.rows)} training rows repeat a prompt"
        evidence.append(Evidence(text, (), {"repeated": float(repeated)}))
    if not evidence:
        return None
    both = len(shared) + len(near)
    if not both:
        return Seen("note", f"{percent(repeated / len(data.rows))} of the rows repeat a prompt", tuple(evidence))
    severity: Severity = "alarm" if both - same >= max(1, 0.01 * held) else "warning"
    return Seen(severity, f"{both} of {held} held-out prompts are in the training data", tuple(evidence))


class _Near:
    """Finds texts that are nearly another."""

    def __init__(self, texts: list[str]) -> None:
        self.shingles = [_shingles(text) for text in texts]
        self.numbers = [_numbers(text) for text in texts]
        self.index: dict[str, list[int]] = defaultdict(list)
        for i, shingles in enumerate(self.shingles):
            for shingle in shingles:
                self.index[shingle].append(i)

    def has(self, text: str) -> bool:
        own, numbers = _shingles(text), _numbers(text)
        common: Counter[int] = Counter()
        for shingle in own:
            found = self.index.get(shingle, ())
            # What a hundred prompts share is a template.
            if len(found) <= 100:
                common.update(found)
        return any(
            many >= 0.8 * len(own | self.shingles[i]) and numbers == self.numbers[i]
            for i, many in common.most_common(5)
        )


def _shingles(text: str) -> set[str]:
    words = re.findall(r"\w+", text)
    if len(words) < _LEAST:
        return set()
    return {" ".join(words[i : i + _WORDS]) for i in range(len(words) - _WORDS + 1)}


def _numbers(text: str) -> Counter[str]:
    return Counter(re.findall(r"\d+", text))
