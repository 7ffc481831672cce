"""Training reward models on judged completions: ordered (Bradley-Terry), graded (regression), labelled (classification)."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cohort.data.judged import Judged, Judgements
from cohort.errors import UsageError
from cohort.files import save_new
from cohort.policies.scoring import REGRESSION, ScoringModel, load_scoring
from cohort.rewards.ensemble import Record, RewardModel
from cohort.seeds import derive, generator
from cohort.signals.answers import inside_thought
from cohort.training.reward_fit import Learner, Plan, fit
from cohort.training.reward_measures import measure, targets_of

# Texts of which the mean score is taken, which becomes 0.
CENTRED = 2000
# Of a member that is trained, what is to be known of it; and what tells a training from others, until all members are there.
MEMBER, TRAINING = "member.json", "training"
INDEPENDENT = "multi_label_classification"


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


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes:
        record: as it stands in the folder.
        steps: of each member that is trained, fewer than planned where the first was stopped.
        folder: where the model is; None where a training of several was stopped between two, whose members stay aside.
    """

    record: Record
    steps: tuple[int, ...]
    folder: Path | None


def aside(folder: Path) -> Path:
    """Where members are kept until all are trained, beside the place of the model."""
    return folder.with_name(f"{folder.name}.partial")


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

    The members of an ensemble are trained one after the other, so that one is in memory, and each is written aside when it is
    done: whatever ends the training, the same call goes on with those.

    Args:
        begin: called before each member with what it is.
        stop: called before each step; True ends the training. What the first member has learnt by then is written as it is.

    Raises:
        UsageError: the model cannot be loaded, or not trained so; or members of another training are aside.
    """
    if judged.kind != "labels" and plan.negative_share != 1.0:
        raise UsageError("--negative-share leaves rows with label 0 out: it goes with labels, not with pairs or scores")
    judged, kept = thinned(judged, plan)
    scale, shift = _standard(judged)
    work = aside(folder)
    _open_aside(work, hashlib.sha256(json.dumps([asdict(plan), asdict(judged)]).encode()).hexdigest())
    try:
        members: list[dict[str, Any]] = []
        scored: list[Tensor] = []
        for member in range(plan.members):
            place = work / f"member-{member + 1}"
            begin("reward model" if plan.members == 1 else f"member {member + 1} of {plan.members}")
            how: dict[str, Any] = {"device": device, "dtype": dtype, "trust_remote_code": trust_remote_code}
            if (place / MEMBER).is_file():
                log(f"member {member + 1} is trained already: it is taken from {place}")
                about = json.loads((place / MEMBER).read_bytes())
                model = load_scoring(str(place), length=about["length"], layout=about["layout"], **how)
            else:
                model, about = _member(judged, plan, member, (scale, shift, kept), how, report, stop, log)
                if not about["steps"] or (member and about["steps"] < plan.steps):
                    break
                save_new(place, partial(_write_member, model, about))
            members.append(about)
            if held_out.rows:
                # What was sampled is measured as it was sampled: the correction is for rows that are not there.
                own = [0.0] * len(judged.labels) if plan.sampled else about["offset"]
                record = Record(scale=(tuple(about["scale"]),), offset=(tuple(own),))
                one = RewardModel([model], record, plan.part, plan.prompt, plan.micro_tokens)
                texts = [(row.prompt, completion) for row in held_out.rows for completion in row.completions]
                scored.append(one.scores([prompt for prompt, _ in texts], [completion for _, completion in texts])[0])
            del model
            if about["steps"] < plan.steps:
                break
    except BaseException:
        _leave(work)
        raise
    steps = tuple(about["steps"] for about in members)
    whole = len(members) == plan.members or (steps and steps[0] < plan.steps)
    record = Record(
        members=tuple("." if not member else f"member-{member + 1}" for member in range(len(members))),
        scale=tuple(tuple(about["scale"]) for about in members),
        offset=tuple(tuple(about["offset"]) for about in members),
        part=plan.part,
        prompt=plan.prompt,
        trained={
            "kind": judged.kind,
            "labels": list(judged.labels),
            "model": plan.model,
            "rows": len(judged.rows),
            "steps": steps,
            "seed": plan.seed,
            "lr": plan.lr,
            "batch_size": plan.batch_size,
            "negative_share": kept,
        },
        evaluated=measure(held_out, torch.cat(scored)) if scored else {},
    )
    if not whole:
        _leave(work)
        return Trained(record, steps, None)
    record = replace(record, layout=members[0]["layout"], length=members[0]["length"])
    _put_together(work, folder, record)
    return Trained(record, steps, folder)


def _member(
    judged: Judgements,
    plan: Plan,
    member: int,
    unit: tuple[Tensor, Tensor, float],
    how: Mapping[str, Any],
    report: Callable[[int, float], None],
    stop: Callable[[], bool],
    log: Callable[[str], None],
) -> tuple[ScoringModel, dict[str, Any]]:
    """A member that is trained now, and what is to be known of it.

    Args:
        unit: scale and shift of the targets, and the share of rows with label 0 that is there.
        how: arguments of `load_scoring`.
    """
    scale, shift, kept = unit
    cuda = [how["device"]] if how["device"].type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(derive(plan.seed, "member", member))
        model = load_scoring(
            plan.model,
            length=plan.length,
            layout=plan.layout,
            labels=judged.labels,
            problem=INDEPENDENT if judged.kind == "labels" else REGRESSION,
            **how,
        )
        if plan.lora:
            _adapt(model, plan.lora)
        one = RewardModel([model], Record(), plan.part, plan.prompt, plan.micro_tokens)
        learner = _learner(one, judged, scale, shift, log if not member else None)
        steps = fit(model, learner, plan, member, report, stop)
    if plan.lora:
        model.model = model.model.merge_and_unload()
    offset = _offset(model, learner, shift, kept)
    return model, {
        "steps": steps,
        "scale": scale.tolist(),
        "offset": list(offset),
        "layout": model.layout,
        "length": model.length,
    }


def _write_member(model: ScoringModel, about: Mapping[str, Any], folder: Path) -> None:
    model.save(folder)
    (folder / MEMBER).write_text(json.dumps(about), encoding="utf-8")


def _open_aside(work: Path, training: str) -> None:
    """The folder for members of this training, with those of an earlier try.

    Args:
        training: what tells it from others.

    Raises:
        UsageError: members of another one stand there.
    """
    told = work / TRAINING
    if told.is_file() and told.read_text(encoding="utf-8") != training:
        raise UsageError(
            f"{work} holds members of a training with other settings or rows: give these again to go on with it, or remove the "
            "folder to begin anew"
        )
    work.mkdir(parents=True, exist_ok=True)
    told.write_text(training, encoding="utf-8")


def _leave(work: Path) -> None:
    """Keep the members that are there, or nothing at all."""
    if not any(work.glob(f"member-*/{MEMBER}")):
        shutil.rmtree(work, ignore_errors=True)


def _put_together(work: Path, folder: Path, record: Record) -> None:
    """Make a reward model of the members aside: the first one's files, the others in folders of their own, and the record."""
    (work / TRAINING).unlink()
    for place in work.glob("member-*"):
        (place / MEMBER).unlink(missing_ok=True)
    first = work / "member-1"
    for path in first.iterdir():
        path.rename(work / path.name)
    first.rmdir()
    record.save(work)
    if folder.is_dir():
        folder.rmdir()  # an empty one, as was checked
    work.rename(folder)


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
