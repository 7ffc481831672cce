"""What is measured of a finished run, from its files alone."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cohort.analysis.at_k import majority_at_k, pass_at_k, powers
from cohort.analysis.files import Unreadable, first_line, regular
from cohort.analysis.statistics import Floats
from cohort.errors import UsageError
from cohort.files import write_atomically
from cohort.signals.answers import answer_key
from cohort.types import Rollout

HELD_OUT = "held-out"
BINS = 10  # of confidence, for the calibration error
Weighted = Callable[[Floats], Floats]  # [B, P] how often each problem counts -> [B] the measure


@dataclass(frozen=True)
class Measure:
    """How a measure is called and read.

    Attributes:
        title: in tables.
        what: its definition, in a sentence.
        unit: of the numbers as they are shown, that is times `scale`.
        better: 1 where more is better, -1 where less is, 0 where neither is.
    """

    title: str
    what: str
    unit: str = ""
    scale: float = 1.0
    better: int = 0


def _share(title: str, what: str, better: int = 1) -> Measure:
    return Measure(title, what, "%", 100.0, better)


MEASURES: dict[str, Measure] = {
    "auroc": Measure(
        "AUROC",
        "area under the ROC curve of a completion's log-probability as a sign that it is correct; 0.5: it says nothing",
        better=1,
    ),
    "ece": _share(
        "calibration error",
        f"expected calibration error (arXiv:1706.04599, {BINS} bins) of the geometric mean of a completion's token "
        "probabilities as the chance that it is correct",
        -1,
    ),
    "diversity": _share(
        "diversity",
        "mean distance between two correct completions of a problem: 1 - the share of token pairs that both have "
        "(Jaccard); over problems with two or more correct ones",
    ),
    "entropy": Measure("entropy", "mean entropy of the distributions that tokens were drawn from", "nats"),
    "length": Measure("length", "mean length of a completion", "tokens"),
    "truncated": _share("truncated", "completions that ran into the token limit", -1),
    "reward": Measure("reward", "mean weighted sum of the reward components", better=1),
    "tokens_to": Measure(
        "sampled to target", "tokens sampled until the target accuracy was reached", "k tokens", 1e-3, -1
    ),
    "trained_to": Measure(
        "trained to target", "tokens trained on until the target accuracy was reached", "k tokens", 1e-3, -1
    ),
    "at_tokens": _share(
        "at equal tokens", "held-out accuracy when the run had sampled as many tokens as the one with fewest"
    ),
    "sampled": Measure("sampled", "tokens sampled by the whole run", "k tokens", 1e-3),
    "seconds": Measure("time", "wall time of the run's steps, evaluation not counted", "s", 1.0, -1),
    "memory": Measure("peak memory", "most memory that the run took", "MB", 1e-6, -1),
}


def about(name: str) -> Measure:
    """How a measure is called; pass@k and maj@k are known for every k."""
    kind, at, k = name.partition("@")
    if at and kind == "pass":
        return _share(
            name, f"chance that one of {k} completions is correct" if k != "1" else "share of correct completions"
        )
    if at and kind == "maj":
        return _share(name, f"share of problems that the most frequent answer of {k} completions gets right")
    return MEASURES[name]


@dataclass(frozen=True)
class Samples:
    """K completions of each of P problems.

    Attributes:
        ids: identity of each problem.
        correct, truncated: [P, K] bool.
        logp: [P, K] log-probability (nats) of a completion; length: its tokens; entropy: mean over its tokens (nats).
        reward: [P, K] weighted sum of the components.
        answers: final answer of each completion; tokens: its token ids.
        made: what it was drawn from and how.
    """

    ids: list[str]
    correct: np.ndarray
    truncated: np.ndarray
    logp: Floats
    length: Floats
    entropy: Floats
    reward: Floats
    answers: list[list[str | None]]
    tokens: list[list[list[int]]]
    made: Mapping[str, Any] = field(default_factory=dict)

    def of(self, ids: Sequence[str]) -> Samples:
        """The same of some problems, in their order."""
        place = {name: i for i, name in enumerate(self.ids)}
        at = [place[name] for name in ids]
        return Samples(
            list(ids),
            self.correct[at],
            self.truncated[at],
            self.logp[at],
            self.length[at],
            self.entropy[at],
            self.reward[at],
            [self.answers[i] for i in at],
            [self.tokens[i] for i in at],
            self.made,
        )


# What is read of an evaluation.
_SCHEMA = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("correct", pa.bool_(), nullable=False),
        pa.field("finished", pa.bool_(), nullable=False),
        pa.field("logp", pa.float64()),
        pa.field("length", pa.float64()),
        pa.field("entropy", pa.float64()),
        pa.field("reward", pa.float64()),
        pa.field("answer", pa.string()),
        pa.field("tokens", pa.list_(pa.int64()), nullable=False),
    ]
)


def evaluation_path(run: Path, name: str) -> Path:
    """Where the completions that a run was measured with stand."""
    return run / "evaluation" / f"{name}.parquet"


def write_evaluation(run: Path, name: str, rollouts: Sequence[Rollout], samples: int, made: Mapping[str, Any]) -> None:
    """Store graded completions, `samples` of each problem, those of a problem together."""
    own = [[(p, e) for p, e, m in zip(r.sampler_logp, r.sampler_entropy, r.mask, strict=True) if m] for r in rollouts]
    table = pa.table(
        {
            "prompt_id": [r.prompt.id for r in rollouts],
            "prompt": [r.prompt.text for r in rollouts],
            "sample": pa.array([i % samples for i in range(len(rollouts))], pa.int32()),
            "completion": [r.text for r in rollouts],
            "answer": pa.array([answer_key(r.text) for r in rollouts], pa.string()),
            "correct": [r.accuracy > 0 for r in rollouts],
            "reward": [float(r.reward) for r in rollouts],
            "finished": [r.finished for r in rollouts],
            "logp": [math.fsum(p for p, _ in pairs) for pairs in own],
            "entropy": [sum(e for _, e in pairs) / max(1, len(pairs)) for pairs in own],
            "length": pa.array([len(pairs) for pairs in own], pa.int32()),
            "tokens": pa.array([r.tokens for r in rollouts], pa.list_(pa.int32())),
        }
    )
    table = table.replace_schema_metadata({"cohort": json.dumps({**made, "samples": samples})})
    path = evaluation_path(run, name)
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, lambda aside: pq.write_table(table, aside, compression="zstd"))


def evaluated_as(run: Path, name: str) -> dict[str, Any] | None:
    """What a stored evaluation was drawn from and how; None if there is none that can be read."""
    path = evaluation_path(run, name)
    try:
        regular(path)
        return dict(json.loads((pq.read_schema(path).metadata or {})[b"cohort"]))
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError, RecursionError, Unreadable):
        return None


def read_evaluation(run: Path, name: str) -> Samples:
    """The completions that a run was measured with.

    Raises:
        UsageError: there is no such file, it is cut, or it is of another kind.
    """
    path = evaluation_path(run, name)
    try:
        regular(path)
        table = pq.read_table(path, columns=_SCHEMA.names).cast(_SCHEMA)
        table.validate(full=True)
        made = evaluated_as(run, name) or {}
        samples = int(made["samples"])
        lacking = [field.name for field in _SCHEMA if not field.nullable and table.column(field.name).null_count]
        if lacking:
            raise ValueError(f"{', '.join(lacking)} has empty cells")
        columns = {key: table.column(key).to_pylist() for key in table.column_names}
        if samples < 1 or table.num_rows % samples or not table.num_rows:
            raise ValueError(f"{table.num_rows} rows are not {samples} of each problem")

        def grid(key: str) -> Floats:
            return np.asarray(columns[key], dtype=np.float64).reshape(-1, samples)

        def lists(key: str) -> list[list[Any]]:
            return [columns[key][i : i + samples] for i in range(0, table.num_rows, samples)]

        return Samples(
            columns["prompt_id"][::samples],
            grid("correct") > 0,
            grid("finished") == 0,
            grid("logp"),
            grid("length"),
            grid("entropy"),
            grid("reward"),
            lists("answer"),
            lists("tokens"),
            made,
        )
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError, Unreadable) as error:
        raise UsageError(f"{path} cannot be read as an evaluation: {first_line(error)}") from error


def measures_of(samples: Samples) -> dict[str, Weighted]:
    """Every measure of K completions of each problem, as a function of how often each problem counts."""
    count = samples.correct.shape[1]
    right = samples.correct.sum(1)
    table = np.array(
        [[pass_at_k(c, count, k) for k in range(1, min(count, 16) + 1)] for c in range(count + 1)], dtype=np.float64
    )
    out: dict[str, Weighted] = {f"pass@{k + 1}": mean_of(table[right, k]) for k in range(table.shape[1])}
    answered = any(answer is not None for answers in samples.answers for answer in answers)
    for k in powers(min(count, 16))[1:] if answered else []:
        voted = [majority_at_k(a, c.tolist(), k) for a, c in zip(samples.answers, samples.correct, strict=True)]
        out[f"maj@{k}"] = mean_of(np.array(voted))
    out["auroc"] = auroc(samples.logp, samples.correct)
    out["ece"] = calibration_error(confidence(samples), samples.correct)
    out["diversity"] = mean_of(diversity(samples))
    for name, values in (("entropy", samples.entropy), ("length", samples.length), ("reward", samples.reward)):
        out[name] = mean_of(values.mean(1))
    out["truncated"] = mean_of(samples.truncated.mean(1))
    return out


def mean_of(values: Floats) -> Weighted:
    """The mean of [P] values over the problems where they are a number."""
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    return lambda weights: _ratio(weights @ filled, weights @ known)


def _ratio(top: Floats, bottom: Floats) -> Floats:
    out: Floats = np.full(np.shape(top), np.nan)
    return np.divide(top, bottom, out=out, where=np.asarray(bottom) > 0)


def auroc(score: Floats, correct: np.ndarray) -> Weighted:
    """Chance that a correct completion has a higher score than a wrong one, of whatever problems; ties count half.

    Args:
        score, correct: [P, K].
    """
    problems, count = score.shape
    owner = np.repeat(np.arange(problems), count)[correct.ravel()]
    winners = score.ravel()[correct.ravel()]
    above = np.zeros((problems, problems))  # pairs (correct of p, wrong of q) that stand in the right order
    for q in range(problems):
        losers = np.sort(score[q][~correct[q]])
        if losers.size:
            wins = np.searchsorted(losers, winners, "left") + np.searchsorted(losers, winners, "right")
            above[:, q] = np.bincount(owner, wins / 2, minlength=problems)
    right, wrong = correct.sum(1).astype(float), (~correct).sum(1).astype(float)
    return lambda weights: _ratio(((weights @ above) * weights).sum(1), (weights @ right) * (weights @ wrong))


def confidence(samples: Samples) -> Floats:
    """[P, K] geometric mean of the probabilities of a completion's tokens."""
    return np.exp(samples.logp / np.maximum(1, samples.length))


def _binned(sure: Floats, correct: np.ndarray) -> Floats:
    """[3, P, BINS] number of completions, sum of confidences and number correct, by bin of confidence."""
    problems = len(sure)
    place = np.minimum((sure * BINS).astype(int), BINS - 1) + BINS * np.arange(problems)[:, None]
    ones = np.ones_like(sure)
    sums = [np.bincount(place.ravel(), each.ravel(), minlength=problems * BINS) for each in (ones, sure, correct)]
    return np.stack(sums).astype(np.float64).reshape(3, problems, BINS)


def calibration_error(sure: Floats, correct: np.ndarray) -> Weighted:
    """Mean over completions of |confidence - share correct| in the bin of their confidence.

    Source: arXiv:1706.04599, equation 5.
    """
    count, total, right = _binned(sure, correct)
    return lambda weights: _ratio(np.abs(weights @ (total - right)).sum(1), weights @ count.sum(1))


def reliability(samples: Samples) -> list[tuple[float, float, int]]:
    """(mean confidence, share correct, number of completions) of each bin that holds any."""
    count, total, right = _binned(confidence(samples), samples.correct).sum(1)
    return [(float(t / n), float(r / n), int(n)) for n, t, r in zip(count, total, right, strict=True) if n]


def diversity(samples: Samples) -> Floats:
    """[P] mean Jaccard distance between the token pairs of two correct completions; NaN with fewer than two."""

    def pairs(tokens: Sequence[int]) -> frozenset[tuple[int, ...]]:
        return frozenset(itertools.pairwise(tokens)) or frozenset([tuple(tokens)])

    out = np.full(len(samples.ids), math.nan)
    for p, (tokens, correct) in enumerate(zip(samples.tokens, samples.correct, strict=True)):
        sets = [pairs(each) for each, right in zip(tokens, correct, strict=True) if right]
        apart = [1 - len(a & b) / len(a | b) for a, b in itertools.combinations(sets, 2)]
        out[p] = float(np.mean(apart)) if apart else math.nan
    return out
