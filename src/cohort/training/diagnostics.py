"""Metrics of a step, also those that say why a run fails: right and wrong rollouts apart, groups, importance ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cohort.environments.tools import UNKNOWN
from cohort.reductions.groups import group_flat, group_max, group_mean, token_mean, token_sum
from cohort.reductions.kl import data_to_divergence, k3
from cohort.training.trace import counts
from cohort.training.update import Gradient
from cohort.types import Batch, Rollout


def measured(
    everything: Batch, sampled: Sequence[Rollout], batch: Batch, passes: Sequence[Gradient], norms: Sequence[float]
) -> dict[str, float]:
    """Metrics of a step; docs/metrics.md says what each is."""
    over = torch.tensor([not rollout.waits for rollout in sampled], dtype=torch.bool, device=everything.device)
    scored = everything.select(~everything.rewards.isnan() & over) if sampled else everything
    out: dict[str, float] = {"reward/mean": float(scored.rewards.mean())}
    for name in dict.fromkeys(name for r in sampled for name in r.components):
        values = [v for r in sampled if (v := r.components.get(name)) is not None]
        out[f"reward/{name}"] = sum(values) / len(values) if values else float("nan")
    for agent in dict.fromkeys(r.agent for r in sampled if r.agent):
        earned = [r.reward for r in sampled if r.agent == agent and r.scored]
        out[f"agent/{agent}/reward"] = sum(earned) / len(earned) if earned else math.nan
    if sampled:
        lengths = everything.mask.sum(1).float()
        flat = group_flat(scored.rewards, scored.groups).float()
        known = torch.tensor([not math.isnan(rollout.accuracy) for rollout in sampled], device=everything.device)
        judged = everything.select(known)
        out |= {
            "accuracy": float(judged["accuracy"].mean()),
            "entropy": _entropy(everything),
            "zero_signal_groups": float(flat.mean()),
            "completion/length_mean": float(lengths.mean()),
            "completion/truncated": float(everything["truncated"].mean()),
            **by_outcome(judged, batch),
            **of_episodes(sampled),
        }
    usable = sum(not rollout.failed for rollout in sampled)
    out |= {"rollouts/sampled": float(usable), "rollouts/trained": float(batch.size if passes else 0)}
    if waiting := sum(rollout.waits for rollout in sampled):
        out["rollouts/waiting"] = float(waiting)
    out |= counts(everything, sampled)
    if passes:
        push, advantages = batch["policy_gradient"], batch.advantages
        acting = batch.mask & (advantages != 0)
        stopped = acting & (push == 0)
        out |= {
            "loss": sum(p.loss for p in passes) / len(passes),
            "loss/policy": sum(p.policy for p in passes) / len(passes),
            "grad_norm": sum(norms) / len(norms),
            "clip_fraction": float(stopped.sum()) / max(1, int(acting.sum())),
            "advantage/abs_mean": float(advantages[batch.mask].abs().mean()) if bool(batch.mask.any()) else 0.0,
        }
        out |= of_ratios(batch) | of_correction(batch) | of_preferences(batch)
        out |= of_divergence(batch) if len(passes) > 1 else {}
        for name in passes[0].regularizers:
            out[f"loss/{name}"] = sum(p.regularizers[name] for p in passes) / len(passes)
        if "ref_logp" in batch:
            out["kl"] = float(token_mean(k3(batch.logp, batch.ref_logp), batch.mask).mean())
    return out


def _entropy(batch: Batch) -> float:
    """Mean over rollouts of the mean entropy that their tokens were drawn with, or, where the engine does not report it, of
    what is drawn in its place: minus the log-probability of what was drawn, whose expectation is the entropy."""
    entropy = torch.where(batch["old_entropy"].isnan(), -batch["sampler_logp"], batch["old_entropy"])
    known = batch.mask & ~entropy.isnan()
    # Rollouts that were not sampled have no entropy and are left out; that of a rollout without tokens is 0.
    rows = known.any(1) | ~batch.mask.any(1)
    mean = token_mean(torch.where(known, entropy, 0.0), known)[rows]
    return float(mean.mean()) if mean.numel() else math.nan


def by_outcome(everything: Batch, batch: Batch) -> dict[str, float]:
    """Length and log-probability of correct and of wrong rollouts, and pass@k within the sampled groups.

    Args:
        everything: all rollouts of the step of which it is known whether they are correct.
        batch: those trained on, with `logp`, if there are any: where nothing was sampled, the policy before the update is
            known from there alone.
    """
    accuracy, groups = everything["accuracy"], everything.groups
    lengths = everything.mask.sum(1).float()
    out = {
        "group/pass@1": float(group_mean(accuracy, groups).mean()),
        "group/pass@G": float(group_max(accuracy, groups).mean()),
        "length/correct": _mean(lengths, accuracy > 0),
        "length/wrong": _mean(lengths, accuracy <= 0),
    }
    known, before = everything, everything["sampler_logp"]
    if everything.size and bool(before[everything.mask].isnan().all()) and "logp" in batch:
        known, before = batch, batch.old_logp if "old_logp" in batch else batch.logp
    # A rollout without a token of the policy's own has no log-probability.
    mask = known.mask & ~before.isnan()
    there = mask.any(1)
    logp, right = token_mean(torch.where(mask, before, 0.0), mask), known["accuracy"] > 0
    return {**out, "logp/correct": _mean(logp, there & right), "logp/wrong": _mean(logp, there & ~right)}


# How episodes end, and the metric that counts them.
ENDS = {
    "done": "episode/done",
    "turns": "episode/out_of_turns",
    "tokens": "episode/out_of_tokens",
    "seconds": "episode/out_of_time",
    "unparseable": "episode/unparseable",
    "failed": "episode/failed",
}


def of_episodes(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """How episodes ended, and what they were made of; nothing where nothing answers the policy."""
    episodes: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        if rollout.end:
            episodes.setdefault(rollout.episode or rollout.id, []).append(rollout)
    if not episodes:
        return {}
    whole = [parts for parts in episodes.values() if parts[0].end != "failed"]
    ends = [parts[0].end for parts in episodes.values()]
    out = {metric: ends.count(end) / len(ends) for end, metric in ENDS.items()}
    if whole:
        out["episode/turns_mean"] = sum(len(part.turns) for parts in whole for part in parts) / len(whole)
        pieces = [1 + len(part.context.rebuilt) for parts in whole for part in parts]
        out["episode/pieces_mean"] = sum(pieces) / len(pieces)
        said = [sum(part.mask) for parts in whole for part in parts]
        tokens = [len(part.tokens) for parts in whole for part in parts]
        out["episode/answers_share"] = 1.0 - sum(said) / max(1, sum(tokens))
        out |= of_tools([part for parts in whole for part in parts], len(whole))
    return out


def of_tools(rollouts: Sequence[Rollout], episodes: int) -> dict[str, float]:
    """What became of tool calls in a number of episodes; nothing where there are no tools."""
    messages = [message for rollout in rollouts for turn in rollout.turns for message in turn.messages]
    broken = sum(len(message.get("call_errors") or []) for message in messages)
    calls = broken + sum(len(message.get("tool_calls") or []) for message in messages)
    if not calls and not any(rollout.prompt.tools for rollout in rollouts):
        return {}
    # Broken calls are answered with an error, too.
    failed = sum(bool(message.get("failed")) and message.get("name") != UNKNOWN for message in messages)
    return {
        "tools/calls_mean": calls / episodes,
        "tools/failed": failed / max(1, calls),
        "tools/unparseable": broken / max(1, calls),
    }


def of_ratios(batch: Batch) -> dict[str, float]:
    """How the importance ratios lie at the tokens' last update, and which side is clipped; nothing without a ratio."""
    if "ratio" not in batch or not bool(batch.mask.any()):
        return {}
    ratio, advantages = batch["ratio"][batch.mask], batch.advantages
    acting = batch.loss_mask & (advantages != 0)
    clipped, count = acting & (batch["policy_gradient"] == 0), max(1, int(acting.sum()))
    return {
        "ratio/mean": float(ratio.mean()),
        "ratio/max": float(ratio.max()),
        "ratio/clip_high_fraction": int((clipped & (advantages > 0)).sum()) / count,
        "ratio/clip_low_fraction": int((clipped & (advantages < 0)).sum()) / count,
    }


def of_divergence(batch: Batch) -> dict[str, float]:
    """How far the step's updates moved the policy, as it stood at the tokens' last update, and how many tokens they learnt
    from for each nat of it; nothing where it is not known what the policy was before."""
    if "old_logp" not in batch or not bool(batch.mask.any()):
        return {}
    kl = float(k3(batch.old_logp, batch.logp)[batch.mask].mean())
    return {"divergence/kl": kl, "divergence/ratio": data_to_divergence(float(batch.mask.sum()), kl)}


def of_preferences(batch: Batch) -> dict[str, float]:
    """By how many nats more than the reference the policy prefers good stored completions to bad ones, before the update:
    the difference of their mean log-ratios. Nothing without both kinds, or without a reference."""
    kind = batch.get("preference")
    if kind is None or "ref_logp" not in batch or not (bool((kind > 0).any()) and bool((kind < 0).any())):
        return {}
    gain = token_sum(batch.logp - batch.ref_logp, batch.mask)
    return {"margin": float(gain[kind > 0].mean() - gain[kind < 0].mean())}


def of_correction(batch: Batch) -> dict[str, float]:
    """How far the trainer was from the sampler, and what the correction made of it; nothing without a correction."""
    if "correction" not in batch or not bool(batch.mask.any()):
        return {}
    weight = batch["correction"][batch.mask]
    trainer = batch.old_logp if "old_logp" in batch else batch.logp
    d = (trainer - batch["sampler_logp"])[batch.mask]
    square = float((weight**2).mean())
    return {
        "correction/weight_mean": float(weight.mean()),
        # Of every token, 1 if all weigh alike.
        "correction/effective_share": float(weight.mean()) ** 2 / square if square else 0.0,
        "correction/zero_fraction": float((weight == 0).double().mean()),
        "correction/k1": -float(d.mean()),
        "correction/k3": float(k3(torch.zeros_like(d), d).mean()),
    }


def _mean(values: Tensor, which: Tensor) -> float:
    return float(values[which].mean()) if bool(which.any()) else math.nan
