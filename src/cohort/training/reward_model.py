"""Training reward models on judged completions: ordered (Bradley-Terry), graded (regression), labelled (classification)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cohort.data.judged import Judged, Judgements
from cohort.errors import UsageError
from cohort.policies.scoring import REGRESSION, Encoded, Layout, ScoringModel, load_scoring, passes
from cohort.reductions.scores import graded_loss, label_loss, pair_loss
from cohort.rewards.ensemble import Record, RewardModel
from cohort.seeds import derive, generator
from cohort.signals.answers import inside_thought
from cohort.training.precision import MasterWeights
from cohort.training.reward_measures import measure, ordered_pairs, targets_of
from cohort.training.schedule import factor

# Texts of which the mean score is taken, which becomes 0.
CENTRED = 2000
INDEPENDENT = "multi_label_classification"


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


def split(judged: Judgements, share: float, seed: int) -> tuple[Judgements, Judgements]:
    """Rows to learn from and rows held out, those of a prompt on one side; neither is empty, but for a share of 0.

    Raises:
        UsageError: there is one prompt alone, which cannot be parted.
    """
    if not share:
        return judged, replace(judged, rows=[])
    prompts = list(dict.fromkeys(_key(row) for row in judged.rows))
    if len(prompts) < 2:
        raise UsageError(
            "all rows have one prompt, of which no part can be held out: give --eval-data, or --held-out 0"
        )
    order = torch.randperm(len(prompts), generator=generator(seed, "held out")).tolist()
    apart = {prompts[i] for i in order[: min(len(prompts) - 1, max(1, round(share * len(prompts))))]}
    sides = ([row for row in judged.rows if (_key(row) in apart) == held] for held in (False, True))
    learnt, held = (replace(judged, rows=rows) for rows in sides)
    return learnt, held


def _key(row: Judged) -> str:
    return json.dumps(row.prompt)


def thinned(judged: Judgements, plan: Plan) -> tuple[Judgements, float]:
    """The rows without some of those with label 0, and the share of these that is there."""
    if plan.negative_share == 1.0 or plan.sampled:
        return judged, plan.negative_share
    zeros = [i for i, row in enumerate(judged.rows) if row.targets == (0.0,)]
    keep = max(1, round(plan.negative_share * len(zeros)))
    order = torch.randperm(len(zeros), generator=generator(plan.seed, "negatives")).tolist()
    dropped = {zeros[i] for i in order[keep:]}
    rows = [row for i, row in enumerate(judged.rows) if i not in dropped]
    return replace(judged, rows=rows), keep / max(1, len(zeros))


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


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes:
        record: as it stands in the folder.
        steps: of each member, fewer than planned where it was stopped.
    """

    record: Record
    steps: tuple[int, ...]


def train_reward_model(
    judged: Judgements,
    held_out: Judgements,
    plan: Plan,
    folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    trust_remote_code: bool = False,
    begin: Callable[[str], None] = lambda what: None,
    report: Callable[[int, float], None] = lambda step, loss: None,
    stop: Callable[[], bool] = lambda: False,
    log: Callable[[str], None] = lambda text: None,
) -> Trained:
    """Train a reward model and write it into a folder that `rm:` and transformers load.

    The members of an ensemble are trained one after the other, so that one is in memory; each is written when it is done.

    Args:
        begin: called before each member with what it is.
        stop: called before each step; True ends the training, with the members so far.

    Raises:
        UsageError: the model cannot be loaded, or not trained so.
    """
    if judged.kind != "labels" and plan.negative_share != 1.0:
        raise UsageError("--negative-share leaves rows with label 0 out: it goes with labels, not with pairs or scores")
    judged, kept = thinned(judged, plan)
    scale, shift = _standard(judged)
    named: list[str] = []
    scales, offsets, scored, steps = [], [], [], []
    record = Record()
    for member in range(plan.members):
        if member and stop():
            break
        begin("reward model" if plan.members == 1 else f"member {member + 1} of {plan.members}")
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(derive(plan.seed, "member", member))
            model = load_scoring(
                plan.model,
                device=device,
                dtype=dtype,
                length=plan.length,
                layout=plan.layout,
                labels=judged.labels,
                problem=INDEPENDENT if judged.kind == "labels" else REGRESSION,
                trust_remote_code=trust_remote_code,
            )
            if plan.lora:
                _adapt(model, plan.lora)
            one = RewardModel([model], Record(), plan.part, plan.prompt, plan.micro_tokens)
            learner = _learner(one, judged, scale, shift, log if not member else None)
            steps.append(fit(model, learner, plan, member, report, stop))
        if plan.lora:
            model.model = model.model.merge_and_unload()
        scales.append(tuple(scale.tolist()))
        offsets.append(_offset(model, learner, shift, kept))
        named.append("." if not member else f"member-{member + 1}")
        record = Record(layout=model.layout, length=model.length, part=plan.part, prompt=plan.prompt)
        if held_out.rows:
            # What was sampled is measured as it was sampled: the correction is for rows that are not there.
            own = [0.0] * len(judged.labels) if plan.sampled else list(offsets[-1])
            one.record = replace(record, scale=(scales[-1],), offset=(tuple(own),))
            texts = [(row.prompt, completion) for row in held_out.rows for completion in row.completions]
            scored.append(one.scores([prompt for prompt, _ in texts], [completion for _, completion in texts])[0])
        model.save(folder / named[-1])
        del model, one, learner
    record = replace(record, members=tuple(named), scale=tuple(scales), offset=tuple(offsets))
    measured: dict[str, Any] = {}
    if scored:
        measured = measure(held_out, torch.cat(scored))
    about: dict[str, Any] = {
        "kind": judged.kind,
        "labels": list(judged.labels),
        "model": plan.model,
        "rows": len(judged.rows),
        "steps": steps,
    }
    about |= {"seed": plan.seed, "lr": plan.lr, "batch_size": plan.batch_size, "negative_share": kept}
    record = replace(record, trained=about, evaluated=measured)
    record.save(folder)
    return Trained(record, tuple(steps))


def _standard(judged: Judgements) -> tuple[Tensor, Tensor]:
    """[K] scale and shift of the targets: outputs are learnt with mean 0 and standard deviation 1."""
    count = len(judged.labels)
    if judged.kind != "scores":
        return torch.ones(count), torch.zeros(count)
    targets, known = targets_of(judged)
    parts = [targets[known[:, i], i].double() for i in range(count)]
    scale = torch.stack([part.std(correction=0) for part in parts])
    return torch.where(scale > 0, scale, torch.ones_like(scale)).float(), torch.stack([p.mean() for p in parts]).float()


def _learner(
    one: RewardModel, judged: Judgements, scale: Tensor, shift: Tensor, log: Callable[[str], None] | None
) -> Learner:
    texts = []
    for row in judged.rows:
        try:
            texts.append([one.encode(row.prompt, completion) for completion in row.completions])
        except UsageError as error:
            raise UsageError(f"{row.where}: {error}") from error
    if log is not None:
        cut = sum(text.cut > 0 for row in texts for text in row)
        if cut:
            log(
                f"{cut} of {sum(map(len, texts))} texts are longer than the {one.members[0].length} tokens that the model "
                "reads: their beginning is left out"
            )
        _check_read(one, judged)
    if judged.kind == "pairs":
        none = torch.zeros(len(texts), 0)
        return Learner(judged, texts, none, none)
    targets, known = targets_of(judged)
    return Learner(judged, texts, (targets - shift) / scale, known)


def _check_read(one: RewardModel, judged: Judgements) -> None:
    """The tokenizer knows what the completions are made of.

    Raises:
        UsageError: it does not.
    """
    texts = [completion for row in judged.rows[:200] for completion in row.completions]
    unknown = one.members[0].unknown_share(texts)
    if unknown > 0.2:
        raise UsageError(
            f"{unknown:.0%} of the tokens of the completions are unknown to the tokenizer of '{one.members[0].name}', which "
            "was made for other texts: take a model that reads these"
        )
    if one.part == "thought" and not any(inside_thought(text) for row in judged.rows for text in row.completions):
        raise UsageError("no completion has marked reasoning (<think>...</think>), which --part thought reads alone")


def _offset(model: ScoringModel, learner: Learner, shift: Tensor, kept: float) -> tuple[float, ...]:
    """[K] what is added to the outputs times the scale: of labels the correction for those that were left out; of scores their
    mean; of pairs what makes the mean score 0, since an order leaves it open and members could not be compared."""
    if learner.judged.kind == "labels":
        return (math.log(kept),)
    if learner.judged.kind == "scores":
        return tuple(shift.tolist())
    texts = [text for row in learner.texts for text in row]
    some = texts[:: max(1, len(texts) // CENTRED)]
    return (-float(model.outputs(some).mean()),)


def _adapt(model: ScoringModel, rank: int) -> None:
    """Freeze the model, and train low-rank adapters on its linear layers, and its head."""
    from peft import LoraConfig, get_peft_model

    how = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="SEQ_CLS")
    model.model = get_peft_model(model.model, how)


def described(record: Record) -> Mapping[str, Any]:
    """What a reward model is, and was measured to be, for results in JSON."""
    return {"members": len(record.members), **record.trained, "evaluated": record.evaluated}
