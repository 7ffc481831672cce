"""A task and a policy small enough to train with every method in a test: the loop and its parts are the real ones.

A prompt is one letter; the answer that is right is one digit, fixed for each letter. The policy starts from demonstrations
that are right with probability START and otherwise name some other digit, with more or less work before the answer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from cohort.policies.causal_lm import CausalLM
from cohort.policies.nursery import nursery
from cohort.policies.sequences import Sequences
from cohort.training import sft
from cohort.training.config import make_config
from cohort.training.loop import Progress, StepResult, one_step
from cohort.training.precision import MasterWeights
from cohort.training.setup import Setup, optimizer_of, prepare
from tests.traits import trait

LETTERS = "abcdefgh"
START = 0.55


def answer(letter: str) -> str:
    return str(3 * LETTERS.index(letter) % 8)


ROWS: list[dict[str, Any]] = [
    {"prompt": letter, "answer": answer(letter), "solution": answer(letter), "task": i % 2, "items": [answer(letter)]}
    for i, letter in enumerate(LETTERS)
]

# What trains in well under three seconds; a method's own needs stand in its adapter's TRAIN.
CONFIG: dict[str, Any] = {
    "data": ROWS, "reward": ["exact"], "steps": 30, "prompts_per_step": 8, "group_size": 16, "max_new_tokens": 4,
    "lr": 6e-3, "grad_clip": 1.0, "tensorboard": False, "show_every": 0, "seed": 1,
}  # fmt: skip


@cache
def folder(root: Path) -> Path:
    """The warm-started policy, made once a folder."""
    path = root / "micro"
    if not (path / "config.json").is_file():
        policy = nursery(seed=0, hidden=32, layers=1, heads=2)
        rng = random.Random(0)
        pairs = []
        for _ in range(60):
            for letter in LETTERS:
                said = answer(letter) if rng.random() < START else str(rng.randrange(8))
                context = policy.encode(policy.render(letter), start=True)
                pairs.append((context, sft.completion_tokens(policy, said)))
        sft.fine_tune(policy, pairs, steps=120, batch_size=48, lr=1e-2, warmup=5)
        policy.save(path)
    return path


@contextmanager
def ready(root: Path, method: str, **changes: Any) -> Iterator[tuple[Setup, MasterWeights, Progress]]:
    """Everything for training the micro policy with a method."""
    config = make_config({**CONFIG, "model": str(folder(root)), "method": method, **changes})
    setup = prepare(config, say=lambda _: None)
    try:
        optimizer = optimizer_of(setup)
        yield setup, optimizer, Progress(states=setup.method.init(size=len(setup.prompts), steps=config.steps))
    finally:
        setup.close()


@contextmanager
def method_ready(root: Path, name: str, **changes: Any) -> Iterator[tuple[Setup, MasterWeights, Progress]]:
    """`ready` with what the method itself needs (`TRAIN` and `HYPER_TRAIN` of its adapter)."""
    expression = name + trait(name, "HYPER_TRAIN", "")
    with ready(root, expression, **{**changes, **trait(name, "TRAIN", {})}) as made:
        yield made


@torch.no_grad()
def success(policy: CausalLM, ending: bool = True) -> float:
    """The true success rate: probability of drawing the right answer and, with `ending`, stopping there, mean over prompts."""
    right = [sft.completion_tokens(policy, answer(letter)) for letter in LETTERS]
    contexts = [policy.encode(policy.render(letter), start=True) for letter in LETTERS]
    sequences = Sequences(tuple(torch.tensor(c) for c in contexts), tuple(torch.tensor(r) for r in right))
    logp = policy.score(sequences, width=max(map(len, right)))["logp"]
    return float((logp.sum(1) if ending else logp[:, 0]).exp().mean())


def train(setup: Setup, optimizer: MasterWeights, progress: Progress) -> list[StepResult]:
    """All steps of the run."""
    return [one_step(setup, optimizer, progress) for _ in range(setup.config.steps)]
