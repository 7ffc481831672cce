"""Importance ratios of stored tokens."""

from __future__ import annotations

import numpy as np

from cohort.doctor.finding import Missing
from cohort.doctor.record import Floats, Record, Rollouts

COLUMNS = ("mask", "sampler_logp", "logp", "old_logp", "ratio", "advantage", "policy_gradient")


def log_ratios(rollouts: Rollouts) -> Floats:
    """log(policy at its last update / policy that sampled) of every stored token that the policy chose."""
    return flat(rollouts, *_logp(rollouts))


def flat(rollouts: Rollouts, first: str, second: str | None = None) -> Floats:
    """A per-token column, or the difference of two, of all tokens that the policy chose, in one row."""
    a = rollouts.lists(first)
    b = rollouts.lists(second) if second is not None else [None] * len(a)
    out = []
    for x, y, mask in zip(a, b, rollouts.policy_tokens, strict=True):
        if x is None or (second is not None and y is None):
            continue
        value = x if y is None else x - y
        out.append(value if mask is None else value[mask > 0])
    return np.concatenate(out) if out else np.empty(0)


def _logp(rollouts: Rollouts) -> tuple[str, str]:
    return "logp", "old_logp" if "old_logp" in rollouts else "sampler_logp"


def ratios(record: Record) -> tuple[list[int], list[Floats]]:
    """(steps, ratios of the stored tokens) of the sampled steps.

    Raises:
        Missing: no rollouts with the log-probabilities.
    """
    found = [(each.step, np.exp(np.clip(log_ratios(each), -30, 30))) for each in record.samples("logp", "sampler_logp")]
    found = [(step, values) for step, values in found if len(values)]
    if not found:
        raise Missing("needs rollouts that were trained on")
    return [step for step, _ in found], [values for _, values in found]
