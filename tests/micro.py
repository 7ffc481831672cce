"""A task and a policy small enough to train with every method in a test: the loop and its parts are the real ones.

A prompt is one letter; the answer that is right is one digit, fixed for each letter. The policy starts from demonstrations
that are often right and otherwise name some digit, and succeeds in rather less than half of its attempts. With
`thought=True` it puts one to four tildes, its thought, before the answer, for methods that act on thoughts and lengths.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

from cohort import registry
from cohort.policies.causal_lm import CausalLM
from cohort.policies.sequences import Sequences
from cohort.policies.toy import toy
from cohort.training import sft
from cohort.training.build import Setup, optimizer_of, prepare
from cohort.training.config import make_config
from cohort.training.loop import one_step
from cohort.training.outcome import StepResult
from cohort.training.precision import MasterWeights
from cohort.training.progress import Progress
from cohort.training.teacher import learns_from_another
from tests.stepping import run_of
from tests.traits import trait

LETTERS = "abcdefgh"
# Nothing that could be read as part of the number after it.
THOUGHT = "~"


def answer(letter: str) -> str:
    return str(3 * LETTERS.index(letter) % 8)


ROWS: list[dict[str, Any]] = [
    {
        "prompt": letter,
        "answer": answer(letter),
        "solution": answer(letter),
        "task": i % 2,
        "items": [answer(letter)],
        # For methods that put something into the prompt.
        "knowledge": ["one digit"],
        "planning": [],
        "steps": ["8 letters", answer(letter)],
        "hint": answer(letter),
        "document": "digits",
        "rubric": [{"criterion": "right", "weight": 2, "factual": True}, {"criterion": "short", "weight": 1}],
    }
    for i, letter in enumerate(LETTERS)
]

# What trains in well under three seconds; a method's own needs stand in its adapter's TRAIN.
CONFIG: dict[str, Any] = {
    "data": ROWS,
    "reward": ["exact"],
    "steps": 30,
    "prompts_per_step": 8,
    "group_size": 16,
    "max_new_tokens": 4,
    "lr": 6e-3,
    "grad_clip": 1.0,
    "tensorboard": False,
    "show_every": 0,
    "seed": 1,
}

THINKING: dict[str, Any] = {"reward": ["number"], "max_new_tokens": 8}


# (right with probability, fewest and most tildes, steps, learning rate) of the demonstrations, phase by phase. Which
# digit belongs to a letter is learnt slowly across a thought and from wrong answers: the thinking policy sees neither first.
PHASES = {
    False: ((0.55, (0, 0), 120, 1e-2),),
    True: ((1.0, (0, 0), 70, 1e-2), (1.0, (0, 4), 100, 1e-2), (0.4, (1, 4), 60, 5e-3)),
}


@cache
def folder(root: Path, thought: bool = False) -> Path:
    """The warm-started policy, made once a folder."""
    path = root / ("thinking" if thought else "micro")
    if not (path / "config.json").is_file():
        policy = toy(seed=0, hidden=48 if thought else 32, layers=1, heads=2)
        rng = random.Random(0)
        for start, (fewest, most), steps, lr in PHASES[thought]:
            pairs = []
            for _ in range(60):
                for letter in LETTERS:
                    thinks = THOUGHT * rng.randint(fewest, most) if most else ""
                    said = answer(letter) if rng.random() < start else str(rng.randrange(8))
                    context = policy.renderer.encode(policy.renderer.render(letter), start=True)
                    pairs.append((context, sft.completion_tokens(policy.renderer, thinks + said)))
            sft.fine_tune(policy, pairs, steps=steps, batch_size=48, lr=lr, warmup=5)
        policy.save(path)
    return path


@contextmanager
def ready(
    root: Path, method: str, *, thought: bool = False, **changes: Any
) -> Iterator[tuple[Setup, MasterWeights, Progress]]:
    """Everything for training the micro policy with a method."""
    given = {**THINKING, **changes} if thought else changes
    config = make_config({**CONFIG, "model": str(folder(root, thought)), "method": method, **given})
    setup = prepare(config, log=lambda _: None)
    try:
        optimizer = optimizer_of(setup)
        yield (
            setup,
            optimizer,
            Progress(states=setup.method.init(size=len(setup.prompts), steps=config.optimisation.steps)),
        )
    finally:
        setup.close()


@contextmanager
def method_ready(root: Path, name: str, **changes: Any) -> Iterator[tuple[Setup, MasterWeights, Progress]]:
    """`ready` with what the method itself needs (`TRAIN` and `HYPER_TRAIN` of its adapter)."""
    expression = name + trait(name, "HYPER_TRAIN", "")
    if learns_from_another(registry.method(expression)):
        changes = {"teacher": str(folder(root)), **changes}
    with ready(root, expression, **{**changes, **trait(name, "TRAIN", {})}) as made:
        yield made


@torch.no_grad()
def outcomes(policy: CausalLM, most: int = 7) -> tuple[float, float]:
    """(true success rate, expected tokens of a right answer) of fewer than `most` tildes, the right digit and the end of the
    completion, mean over prompts."""
    said = [(letter, THOUGHT * tildes + answer(letter)) for letter in LETTERS for tildes in range(most)]
    right = [torch.tensor(sft.completion_tokens(policy.renderer, text)) for _, text in said]
    contexts = [torch.tensor(policy.renderer.encode(policy.renderer.render(letter), start=True)) for letter, _ in said]
    logp = policy.log_probs(Sequences(tuple(contexts), tuple(right)), width=max(map(len, right)))["logp"]
    probability = logp.sum(1).exp()
    lengths = torch.tensor([float(len(tokens)) for tokens in right])
    return float(probability.sum() / len(LETTERS)), float((probability * lengths).sum() / probability.sum())


def success(policy: CausalLM) -> float:
    """The true success rate."""
    return outcomes(policy)[0]


def train(setup: Setup, optimizer: MasterWeights, progress: Progress) -> list[StepResult]:
    """All steps of the run."""
    return [one_step(run_of(setup, optimizer, progress)) for _ in range(setup.config.optimisation.steps)]
