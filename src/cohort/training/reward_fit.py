"""The steps of training one reward model: its loss on judged rows, and its updates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from cohort.data.judged import Judgements
from cohort.errors import UsageError
from cohort.policies.scoring import Encoded, Layout, ScoringModel, passes
from cohort.reductions.scores import graded_loss, label_loss, pair_loss
from cohort.seeds import generator
from cohort.training.precision import MasterWeights
from cohort.training.reward_measures import ordered_pairs
from cohort.training.schedule import factor


@dataclass(frozen=True)
class Plan:
    """How a reward model is trained.

    Attributes:
        model: folder or hub id that it is made of.
        members: models that are trained alike, with heads and orders of the data of their own.
        batch_size: rows a step.
        negative_share: share of the rows with label 0 that is learnt from, which the scores are corrected for.
        sampled: the data holds only that share already.
        part, prompt, layout, length: what is read of a row (see `RewardModel`).
        lora: rank of adapters; 0 trains the whole model.
    """

    model: str
    members: int = 1
    steps: int = 200
    batch_size: int = 32
    lr: float = 1e-5
    warmup: int = 10
    schedule: str = "cosine"
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    micro_tokens: int = 16384
    seed: int = 0
    negative_share: float = 1.0
    sampled: bool = False
    part: str = "all"
    prompt: bool = True
    layout: Layout | None = None
    length: int | None = None
    lora: int = 0


@dataclass
class Learner:
    """Rows as a model reads them, and its loss on them.

    Attributes:
        texts: of each row.
        targets, known: [n, K] in the unit of the outputs (see `targets_of`).
    """

    judged: Judgements
    texts: list[list[Encoded]]
    targets: Tensor
    known: Tensor

    def loss(self, model: ScoringModel, rows: Sequence[int]) -> tuple[Tensor, int]:
        """The mean loss of some rows, and over how many pairs or numbers."""
        outputs = model.forward([text for row in rows for text in self.texts[row]])
        if self.judged.kind == "pairs":
            better, worse = ordered_pairs([len(self.texts[row]) for row in rows]).to(outputs.device)
            return pair_loss(outputs[better, 0], outputs[worse, 0]), better.numel()
        targets, known = (each[list(rows)].to(outputs.device) for each in (self.targets, self.known))
        if self.judged.kind == "labels":
            return label_loss(outputs[:, 0], targets[:, 0]), len(rows)
        return graded_loss(outputs, targets, known), int(known.sum())

    def count(self, rows: Sequence[int]) -> int:
        """Pairs or numbers of some rows."""
        if self.judged.kind == "pairs":
            return sum(math.comb(len(self.texts[row]), 2) for row in rows)
        return len(rows) if self.judged.kind == "labels" else int(self.known[list(rows)].sum())


def fit(
    model: ScoringModel,
    learner: Learner,
    plan: Plan,
    member: int,
    report: Callable[[int, float], None],
    stop: Callable[[], bool],
) -> int:
    """Train a model, and return the steps that it took: fewer than planned if `stop` said so."""
    make = partial(torch.optim.AdamW, lr=plan.lr, betas=(0.9, 0.98), weight_decay=plan.weight_decay)
    trained = [p for p in model.model.parameters() if p.requires_grad]
    optimizer = MasterWeights(trained, make)
    rng = generator(plan.seed, "reward model", member)
    sizes = [max(map(len, texts)) * len(texts) for texts in learner.texts]
    order: list[int] = []
    for step in range(1, plan.steps + 1):
        if stop():
            return step - 1
        while len(order) < plan.batch_size:
            order += torch.randperm(len(learner.texts), generator=rng).tolist()
        chosen, order = order[: plan.batch_size], order[plan.batch_size :]
        whole, total = learner.count(chosen), 0.0
        model.model.train()
        for places in passes([sizes[row] for row in chosen], plan.micro_tokens):
            loss, count = learner.loss(model, [chosen[place] for place in places])
            if count:
                (loss * (count / whole)).backward()
                total += float(loss.detach()) * count / whole
        if not math.isfinite(total):
            raise UsageError(
                f"the loss is {total} at step {step}: the learning rate ({plan.lr:g}) is too large for this model; lower --lr"
            )
        torch.nn.utils.clip_grad_norm_(trained, plan.grad_clip)
        optimizer.set_lr(plan.lr * factor(step, plan.steps, warmup=plan.warmup, schedule=plan.schedule))
        optimizer.step()
        optimizer.zero_grad()
        report(step, total)
    return plan.steps
