"""A step's rollouts as a table; docs/metrics.md says what the columns are."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from cohort.analysis.episodes import TURNS
from cohort.reductions.groups import token_mean, token_sum
from cohort.training.outcome import StepResult
from cohort.training.trace import REMOVED_AFTER, REMOVED_BEFORE, TOO_FEW, TRAINED
from cohort.types import Batch, Message, Rollout, Turn

PiecesOf = Callable[[Sequence[int]], list[str]]
# Lists whose values seldom repeat: a dictionary of them would only cost time.
CONTINUOUS = (
    "sampler_logp",
    "logp",
    "old_logp",
    "ref_logp",
    "entropy",
    "old_entropy",
    "policy_gradient",
    "ratio",
    "advantage",
    "base_advantage",
    "weight",
)


# What became of rollouts without a reward.
ABSTAINED, FAILED = "left out: no reward applies", "left out: a reward function failed"
BROKEN = "left out: its environment failed"


def rollout_table(
    result: StepResult,
    *,
    tokens: bool = True,
    groups: Collection[int] | None = None,
    pieces: PiecesOf | None = None,
    filters: tuple[str, str] = ("", ""),
) -> pa.Table:
    """A row a rollout: prompt, completion, what it was rewarded, and how its tokens were weighted.

    Args:
        tokens: with lists that have an entry a token.
        groups: whose lists are stored in full (numbers as in the column `group`); None: all. Of the others' tokens only
            ids, mask and log-probabilities under the sampler are stored.
        pieces: token ids -> the text of each.
        filters: names of the method's filters before and after the advantage.
    """
    rollouts, columns = result.rollouts, _rollouts(result, filters)
    if any(r.end for r in rollouts):
        columns |= _episodes(rollouts, pieces if tokens else None)
    if tokens:
        label = np.asarray(columns["group"])
        whole = np.ones(len(rollouts), bool) if groups is None else np.isin(label, list(groups))
        columns |= _lists(result, whole)
        if pieces is not None:
            columns["pieces"] = _pieces(rollouts, whole, pieces)
    for name in dict.fromkeys(name for r in rollouts for name in r.logged):
        own = name in columns or name.startswith("reward/")
        columns[f"logged/{name}" if own else name] = _logged([r.logged.get(name) for r in rollouts])
    return pa.table(columns)


def _logged(values: list[Any]) -> pa.Array:
    """What a reward function logged of each rollout: numbers where all are, else texts."""
    there = [value for value in values if value is not None]
    for kind, dtype in ((bool, pa.bool_()), (int, pa.int64()), (float, pa.float64())):
        if there and all(type(value) in (kind, int if kind is float else kind) for value in there):
            return pa.array(values, dtype)
    texts = [None if value is None else str(value).encode(errors="replace").decode() for value in values]
    return pa.array(texts, pa.string())


def signals(result: StepResult) -> list[float]:
    """Of each group, the sum of its tokens' absolute policy gradients: how hard the step's last updates pulled on it."""
    everything, batch = result.everything, result.batch
    out = torch.zeros(everything.groups.count, dtype=torch.float64)
    if batch is not None and "policy_gradient" in batch:
        pulls = token_sum(batch["policy_gradient"].abs(), batch.mask).cpu().double()
        out.index_add_(0, everything.groups.index.cpu()[result.trained], pulls)
    return [float(x) for x in out]


def _unscored(rollout: Rollout) -> str:
    """Why a rollout has no reward."""
    return BROKEN if rollout.status == "failed" else FAILED if rollout.failed else ABSTAINED


def _rollouts(result: StepResult, filters: tuple[str, str]) -> dict[str, Any]:
    """Columns with a value a rollout."""
    rollouts, everything, batch = result.rollouts, result.everything, result.batch
    trained = set(result.trained)
    reasons = {
        TRAINED: "trained",
        REMOVED_BEFORE: f"removed before the advantage{filters[0] and f' by {filters[0]}'}",
        REMOVED_AFTER: f"removed after the advantage{filters[1] and f' by {filters[1]}'}",
        TOO_FEW: "left out: too few rollouts of its group for the method",
    }
    kept = [
        reasons[stage] if rollout.scored else _unscored(rollout)
        for stage, rollout in zip(everything["stage"].tolist(), rollouts, strict=True)
    ]
    unscored = [i for i, rollout in enumerate(rollouts) if not rollout.scored]
    mask = everything.mask
    columns: dict[str, Any] = {
        "group": pa.array(everything.groups.index.cpu().numpy().astype(np.int32)),
        "prompt_id": pa.array([r.prompt.id for r in rollouts], pa.string()),
        "prompt": pa.array([r.prompt.text for r in rollouts], pa.string()),
        "question": pa.array([_question(r) for r in rollouts], pa.string()),
        "completion": pa.array([r.text for r in rollouts], pa.string()),
        "reward": _floats(r.reward for r in rollouts),
        "accuracy": _floats(r.accuracy for r in rollouts),
        "finished": pa.array([r.finished for r in rollouts], pa.bool_()),
        "trained": pa.array([i in trained for i in range(len(rollouts))], pa.bool_()),
        "kept": pa.array(kept, pa.string()),
        "shaped_reward": _numbers(everything["shaped_reward"]),
        "length": pa.array(mask.sum(1).cpu().numpy().astype(np.int32)),
        "logp_mean": _numbers(token_mean(everything["sampler_logp"], mask)),
        "entropy_mean": _numbers(token_mean(everything["old_entropy"], mask)),
    }
    if any(r.agent for r in rollouts):
        columns["agent"] = pa.array([r.agent for r in rollouts], pa.string())
        columns["episode"] = pa.array(everything.episode.cpu().numpy().astype(np.int32))
    for name, values in _of_trained(batch).items():
        whole = values.new_full((len(rollouts),), torch.nan)
        whole[result.trained] = values
        # Without a reward nothing pulls on it, one way or the other.
        whole[unscored] = 0.0
        columns[name] = _numbers(whole)
    for name in dict.fromkeys(name for r in rollouts for name in r.components):
        columns[f"reward/{name}"] = pa.array([r.components.get(name) for r in rollouts], pa.float32())
    return columns


def _episodes(rollouts: Sequence[Rollout], pieces: PiecesOf | None) -> dict[str, Any]:
    """Columns of rollouts that something answered; `pieces` for the texts of contexts that were rebuilt."""

    def text(messages: Sequence[Message]) -> str:
        return json.dumps(messages, default=str)

    def of(turn: Turn) -> dict[str, Any]:
        context = None if turn.context is None or pieces is None else "".join(pieces(turn.context.tokens))
        own = {"start": turn.start, "end": turn.end, "reward": turn.reward}
        return {**own, "messages": text(turn.messages), "context": context}

    turns = [[of(turn) for turn in r.turns] for r in rollouts]
    return {
        "end": pa.array([r.end for r in rollouts], pa.string()),
        "error": pa.array([r.error or None for r in rollouts], pa.string()),
        "opening": pa.array([text(r.opening) if r.opening else None for r in rollouts], pa.string()),
        "turns": pa.array(turns, TURNS),
    }


def _question(rollout: Rollout) -> str | None:
    """What the prompt asks; None where it is the prompt itself."""
    return None if rollout.prompt.question == rollout.prompt.text else rollout.prompt.question


def _of_trained(batch: Batch | None) -> dict[str, Tensor]:
    """Numbers of rollouts that were trained on: name -> [n]."""
    if batch is None:
        return {"advantage_mean": torch.zeros(0)}
    out = {"advantage_mean": token_mean(batch.advantages, batch.mask)}
    if "policy_gradient" in batch:
        out["policy_gradient_abs"] = token_sum(batch["policy_gradient"].abs(), batch.mask)
    return out


def _lists(result: StepResult, whole: NDArray[np.bool_]) -> dict[str, pa.Array]:
    """Columns with a list a rollout, of one entry a token; those of the update are null where `whole` is False."""
    everything, batch = result.everything, result.batch
    lengths = np.array([len(r.tokens) for r in result.rollouts], dtype=np.int64)
    every = np.arange(len(lengths))
    trained = np.full(len(lengths), -1)
    trained[result.trained] = np.arange(len(result.trained))
    rows = np.where(whole, trained, -1)
    columns = {
        "tokens": _list(everything.stored("token_ids"), every, lengths, np.int32),
        "mask": _list(everything.mask, every, lengths, np.int8),
        "sampler_logp": _list(everything["sampler_logp"], every, lengths),
        "old_entropy": _list(everything["old_entropy"], np.where(whole, every, -1), lengths),
        "base_advantage": _list(everything["base_advantage"], np.where(whole & (trained >= 0), every, -1), lengths),
    }
    if "version" in everything and bool((age := updates_since(everything, result.version)).any()):
        columns["version"] = _list(everything["version"], every, lengths, np.int32)
        columns["age"] = _list(age, every, lengths, np.int32)
    update = _of_update(batch)
    empty = everything["sampler_logp"]
    for name in ("logp", "advantage", *(name for name in update if name not in ("logp", "advantage"))):
        kind = np.int8 if name == "clipped" else np.float32
        columns[name] = _list(update.get(name, empty), rows, lengths, kind)
    return columns


def updates_since(batch: Batch, version: int) -> Tensor:
    """[N, T] int64: how many updates lie between the weights that drew a token and `version`; 0 where the policy
    chose nothing."""
    return torch.where(batch.mask, version - batch["version"], 0)


def _of_update(batch: Batch | None) -> dict[str, Tensor]:
    """What the step's last updates made of the tokens: name -> [n, T]."""
    if batch is None or "policy_gradient" not in batch:
        return {}
    push = batch["policy_gradient"]
    names = {
        "logp": "logp",
        "advantage": "advantages",
        "policy_gradient": "policy_gradient",
        "ratio": "ratio",
        "weight": "loss_weight",
        "entropy": "entropy",
        "ref_logp": "ref_logp",
    }
    out = {column: batch[name] for column, name in names.items() if name in batch}
    # A step of one update, on its own rollouts, starts from the very policy that it scores them with.
    out["old_logp"] = batch.old_logp if "old_logp" in batch else batch.logp
    out["clipped"] = batch.mask & (batch.advantages != 0) & (push == 0)
    return out


def _pieces(rollouts: Sequence[Rollout], whole: NDArray[np.bool_], pieces: PiecesOf) -> pa.Array:
    texts = [pieces(r.tokens) if asked else None for r, asked in zip(rollouts, whole, strict=True)]
    return pa.array(texts, pa.list_(pa.string()))


def _numbers(values: Tensor) -> pa.Array:
    """[N], null where it is NaN."""
    return pa.array(values.detach().float().cpu().numpy(), pa.float32(), from_pandas=True)


def _floats(values: Iterable[float]) -> pa.Array:
    """[N] float32, null where it is NaN."""
    return pa.array(np.fromiter(values, np.float32), from_pandas=True)


def _list(
    values: Tensor, rows: NDArray[np.int64], lengths: NDArray[np.int64], kind: type[np.generic] = np.float32
) -> pa.ListArray:
    """A list for each of N rollouts, of its first `lengths` [N] values, from flat numbers and offsets.

    Args:
        values: [n, T].
        rows: [N] which row of `values` is whose; -1 makes a null.
    """
    there = rows >= 0
    counts = np.where(there, lengths, 0)
    offsets = np.concatenate([[0], counts.cumsum()]).astype(np.int32)
    # What nobody asked for stays where it is.
    own = values.detach()[torch.from_numpy(rows[there]).to(values.device)].cpu()
    own = own if own.dtype in (torch.bool, torch.int64) else own.float()
    flat = own.numpy()[np.arange(own.shape[1]) < counts[there, None]].astype(kind, copy=False)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), mask=pa.array(~there))
