"""How good a reward model is on judged completions that it has not seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy, logsigmoid

from cohort.data.judged import Judgements
from cohort.errors import UsageError
from cohort.policies.scoring import REGRESSION
from cohort.reductions.scores import auc, calibration_error, disagreement, mean_gap, ordered_share
from cohort.rewards.ensemble import RewardModel

# Rows of which every pair is looked at.
PAIRED = 4000


def ordered_pairs(sizes: Sequence[int]) -> Tensor:
    """[2, P] places of (better, worse) texts, of rankings of so many texts each that stand one behind the other."""
    found, start = [], 0
    for size in sizes:
        found += [(start + i, start + j) for i, j in combinations(range(size), 2)]
        start += size
    return torch.tensor(found, dtype=torch.int64).reshape(-1, 2).T


def targets_of(judged: Judgements) -> tuple[Tensor, Tensor]:
    """[n, K] targets, and where there are any; arbitrary (0) where there are none."""
    known = torch.tensor([[target is not None for target in row.targets] for row in judged.rows])
    return torch.tensor([[target or 0.0 for target in row.targets] for row in judged.rows]), known


def measure(judged: Judgements, scores: Tensor) -> dict[str, dict[str, float]]:
    """Label -> what scores [M, texts, K] of the completions of judged rows are worth.

    Of pairs: `accuracy` (share in the right order), `log_loss`, `calibration_error` and `mean_gap` of the probability that it
    gives the one that it prefers. Of labels: `accuracy` at 1/2, `auc`, `log_loss`, `calibration_error`, `mean_gap`, `share`
    (of label 1). Of scores: `ordered` (share of pairs of rows in the right order), `r2`, `rmse`, `calibration_error` and
    `mean_gap` in the score's own unit. Of several members also `disagreement`, the mean of their standard deviation, and of
    pairs and labels `disagreement_auc`: how well it tells wrong verdicts from right ones (1/2: not at all). What these rows say
    nothing of, such as an AUC where all have one label, is left out.
    """
    if judged.kind == "pairs":
        better, worse = ordered_pairs([len(row.completions) for row in judged.rows])
        apart = scores[:, better, 0] - scores[:, worse, 0]
        found = {judged.labels[0]: _pairs(apart)}
    else:
        targets, known = targets_of(judged)
        of = _labels if judged.kind == "labels" else _scores
        found = {
            label: of(scores[:, known[:, i], i], targets[known[:, i], i]) if bool(known[:, i].any()) else {"rows": 0.0}
            for i, label in enumerate(judged.labels)
        }
    return {label: {k: v for k, v in each.items() if not math.isnan(v)} for label, each in found.items()}


def _pairs(apart: Tensor) -> dict[str, float]:
    """Of differences [M, P] between the scores of better and worse texts."""
    mean = apart.mean(0)
    right = (mean > 0).double() + 0.5 * (mean == 0).double()
    sure = mean.abs().sigmoid()
    found = {
        "rows": float(mean.numel()),
        "accuracy": float(right.mean()),
        "log_loss": float(-logsigmoid(mean).mean()),
        "calibration_error": calibration_error(sure, right),
        "mean_gap": mean_gap(sure, right),
    }
    return found | _apart(apart, right)


def _labels(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Of scores [M, n] before the sigmoid, and labels [n]."""
    each = scores.sigmoid()
    chance = each.mean(0)
    right = ((chance >= 0.5) == labels.bool()).double()
    found = {
        "rows": float(labels.numel()),
        "accuracy": float(right.mean()),
        "auc": auc(chance, labels),
        "log_loss": float(binary_cross_entropy(chance.clamp(1e-7, 1 - 1e-7), labels.to(chance))),
        "calibration_error": calibration_error(chance, labels),
        "mean_gap": mean_gap(chance, labels),
        "share": float(labels.mean()),
    }
    return found | _apart(each, right)


def _scores(scores: Tensor, targets: Tensor) -> dict[str, float]:
    """Of scores [M, n], and what they should be [n]."""
    mean = scores.mean(0)
    error = ((mean - targets) ** 2).mean()
    spread = targets.double().var(correction=0)
    found = {
        "rows": float(targets.numel()),
        "ordered": ordered_share(mean[:PAIRED], targets[:PAIRED]),
        "r2": float(1 - error.double() / spread) if float(spread) else math.nan,
        "rmse": float(error.sqrt()),
        "calibration_error": calibration_error(mean, targets),
        "mean_gap": mean_gap(mean, targets),
    }
    return found | ({"disagreement": float(disagreement(scores).mean())} if len(scores) > 1 else {})


def _apart(values: Tensor, right: Tensor) -> dict[str, float]:
    if len(values) < 2:
        return {}
    apart = disagreement(values)
    decided = right != 0.5
    return {"disagreement": float(apart.mean()), "disagreement_auc": auc(apart[decided], 1 - right[decided])}


def summary(kind: str, found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What was measured, a line a label."""
    lines = []
    for label, values in found.items():
        said = ", ".join(f"{key.replace('_', ' ')} {value:.3g}" for key, value in values.items() if key != "rows")
        lines.append(f"{label}, on {values['rows']:.0f} held-out {'pairs' if kind == 'pairs' else 'rows'}: {said}")
        # What says whether a model has learnt anything.
        name, chance = {"pairs": "accuracy", "labels": "auc"}.get(kind, "ordered"), 0.5
        if name not in values:
            lines.append(
                f"{label}: the held-out rows are all alike, so that they say nothing: hold more out (--held-out)"
            )
        # Two standard errors of a share.
        elif not values[name] > chance + 1 / math.sqrt(max(1.0, values["rows"])):
            lines.append(
                f"{label}: {name} is not above chance ({chance:g}) by more than luck gives: the model has not learnt to "
                "tell these apart. More rows, more steps, another learning rate or a larger model may help; do not train a "
                "policy with it"
            )
    return lines


def measured(
    name: str, judged: Judgements, *, device: torch.device, dtype: torch.dtype, **read: Any
) -> dict[str, dict[str, float]]:
    """Label -> what is measured of the reward model in a folder, or on the hub.

    Args:
        read: what it is to read in place of what its record says, as of `RewardModel.load`.

    Raises:
        UsageError: it cannot be loaded, or says nothing of what the rows are judged by.
    """
    model = RewardModel.load(name, device=device, dtype=dtype, **read)
    why = ""
    if judged.kind == "pairs" and len(model.labels) > 1:
        why = f"it has several labels ({', '.join(model.labels)}), and a pair has one order"
    elif (
        judged.kind != "pairs" and set(judged.labels) - set(model.labels) and len(model.labels) + len(judged.labels) > 2
    ):
        why = f"it gives {', '.join(model.labels)}, and the data has {', '.join(judged.labels)}"
    elif judged.kind != "pairs" and (judged.kind == "scores") != (model.problem == REGRESSION):
        why = f"its outputs are of the kind {model.problem}, and the data has {judged.kind}"
    if why:
        raise UsageError(f"the reward model '{name}' cannot be measured on these rows: {why}")
    texts = [(row.prompt, completion) for row in judged.rows for completion in row.completions]
    scores, _ = model.scores([prompt for prompt, _ in texts], [completion for _, completion in texts])
    if len(model.labels) > 1:
        scores = scores[..., [model.labels.index(label) for label in judged.labels]]
    return measure(judged, scores)
