"""A policy for the micro task that has learnt to read a demonstration: "a=5" is answered with 5, "a" mostly by guessing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from cohort.policies.toy import toy
from cohort.training import sft
from cohort.training.build import Setup
from cohort.training.precision import MasterWeights
from cohort.training.progress import Progress
from tests import micro

# What stands between a question and its demonstration.
SOLUTION, ENDING = "={}", ""


@cache
def folder(root: Path) -> Path:
    """The warm-started policy, made once a folder."""
    path = root / "shown"
    if not (path / "config.json").is_file():
        policy, rng = toy(seed=0, hidden=48, layers=1, heads=2), random.Random(0)
        # To read first: it is learnt slowly beside answers that are mostly guesses.
        for steps, guesses in ((70, False), (70, True)):
            pairs = []
            for _ in range(30):
                for letter in micro.LETTERS:
                    digit = str(rng.randrange(8))
                    said = [(letter + SOLUTION.replace("{}", digit), digit)]
                    if guesses:
                        right = rng.random() < 0.5
                        said.append((letter, micro.answer(letter) if right else str(rng.randrange(8))))
                    for prompt, completion in said:
                        context = policy.renderer.encode(policy.renderer.render(prompt), start=True)
                        pairs.append((context, sft.completion_tokens(policy.renderer, completion)))
            sft.fine_tune(policy, pairs, steps=steps, batch_size=32, lr=1e-2, warmup=5)
        policy.save(path)
    return path


@contextmanager
def ready(root: Path, method: str, **changes: Any) -> Iterator[tuple[Setup, MasterWeights, Progress]]:
    """Everything for training it."""
    with micro.ready(root, method, **{"model": str(folder(root)), **changes}) as made:
        yield made
