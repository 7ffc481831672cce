"""How good a policy is: pass@1, pass@k, maj@k, with intervals over problems."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cohort.analysis.at_k import majority_at_k, pass_at_k, powers
from cohort.analysis.statistics import mean_interval
from cohort.rollouts.collect import Collector
from cohort.seeds import derive
from cohort.signals.answers import answer_key
from cohort.training.diagnostics import of_episodes
from cohort.types import Context, Prompt, Request, Rollout


@dataclass
class Evaluation:
    """What came of an evaluation.

    Attributes:
        metrics: name -> value: `pass@k`, `maj@k`, `reward/mean`, `reward/NAME`, `completion/length_mean`,
            `completion/truncated`; where something answers, `episode/NAME` and `tools/NAME` (docs/metrics.md).
        intervals: name -> (low, high), 95 % interval over problems; NaN where they say nothing of the error.
        problems: number of problems; samples: completions of each.
        rollouts: all completions, those of a problem together.
        unjudged: completions of which nothing says whether they are correct; they count neither as right nor as wrong.
        verdict: what the share of correct completions is called (see `Grader`).
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    problems: int
    samples: int
    rollouts: list[Rollout] = field(repr=False, default_factory=list)
    unjudged: int = 0
    verdict: str = "accuracy"

    @property
    def accuracy(self) -> float:
        """pass@1: the mean share of correct completions; NaN if nothing says which are."""
        return self.metrics.get("pass@1", math.nan)

    @property
    def headline(self) -> str:
        """pass@1 with its name: "accuracy 84.0%"."""
        return f"{self.verdict} {'unknown' if math.isnan(self.accuracy) else format(self.accuracy, '.1%')}"

    @property
    def note(self) -> str:
        """What to say of completions that were left out, or ""."""
        if not self.unjudged:
            return ""
        return f"{self.unjudged} of {self.problems * self.samples} completions have no verdict and are left out"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON."""
        values = {}
        for name, value in self.metrics.items():
            low, high = (None if math.isnan(end) else end for end in self.intervals[name])
            values[name] = {"value": value, "low": low, "high": high}
        about = {name: getattr(self, name) for name in ("problems", "samples", "unjudged", "verdict")}
        return {**about, "metrics": values}

    def completions(self) -> list[dict[str, Any]]:
        """Every completion as plain values: problem and sample, counted from 1, what was asked, and what came of it."""
        return [
            {
                "problem": i // self.samples + 1,
                "sample": i % self.samples + 1,
                "question": r.prompt.question,
                "answer": _plain(r.prompt.row.get("answer")),
                "completion": r.text,
                "reward": r.reward if r.scored else None,
                "correct": None if math.isnan(r.accuracy) else r.accuracy > 0,
                **{f"reward/{name}": value for name, value in r.components.items()},
                "tokens": sum(r.mask),
                "finished": r.finished,
                **({} if not r.end else _episode(r)),
            }
            for i, r in enumerate(self.rollouts)
        ]


def _episode(rollout: Rollout) -> dict[str, Any]:
    """What became of an episode: why it ended, and what was said in it."""
    turns = [{"messages": list(turn.messages), "reward": turn.reward} for turn in rollout.turns]
    opening = {"opening": list(rollout.opening)} if rollout.opening else {}
    return {"end": rollout.end, **({"error": rollout.error} if rollout.error else {}), **opening, "turns": turns}


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float) else str(value)


def summarise(rollouts: Sequence[Rollout], samples: int) -> Evaluation:
    """Metrics of graded rollouts, `samples` of each problem, those of a problem together.

    What no reward applies to, or none could score, is left out of rewards and accuracies; a problem with fewer than k
    verdicts is left out of pass@k and maj@k. A metric of which nothing is known is missing.
    """
    problems = [rollouts[i : i + samples] for i in range(0, len(rollouts), samples)]
    per_problem: dict[str, list[float]] = {}

    def put(name: str, value: float) -> None:
        per_problem.setdefault(name, []).append(value)

    extractable = any(answer_key(r.text) is not None for r in rollouts)
    for group in problems:
        judged = [r for r in group if not math.isnan(r.accuracy)]
        correct = [r.accuracy > 0 for r in judged]
        known = [k for k in powers(samples) if k <= len(judged)]
        for k in known:
            put(f"pass@{k}", pass_at_k(sum(correct), len(judged), k))
        if extractable:
            answers = [answer_key(r.text) for r in judged]
            for k in known[1:]:
                put(f"maj@{k}", majority_at_k(answers, correct, k))
        if scored := [r.reward for r in group if r.scored]:
            put("reward/mean", float(np.mean(scored)))
        for name in group[0].components:
            values = [v for r in group if (v := r.components.get(name)) is not None]
            if values:
                put(f"reward/{name}", float(np.mean(values)))
        put("completion/length_mean", float(np.mean([sum(r.mask) for r in group])))
        put("completion/truncated", float(np.mean([r.status == "truncated" for r in group])))
        for name, value in of_episodes(group).items():
            put(name, value)
    metrics = {name: float(np.mean(values)) for name, values in per_problem.items()}
    intervals = {
        name: mean_interval(np.asarray(values, dtype=np.float64), shares=not counts(name))
        for name, values in per_problem.items()
    }
    unjudged = sum(math.isnan(r.accuracy) for r in rollouts)
    return Evaluation(metrics, intervals, len(problems), samples, list(rollouts), unjudged)


def counts(name: str) -> bool:
    """True for a metric that counts things; others are shares, where they lie between 0 and 1."""
    return name.startswith(("completion/", "episode/", "tools/")) and name.endswith("_mean")


def greedy(collector: Collector) -> Collector:
    """The collector, drawing the likeliest token each time."""
    return replace(collector, sampling=replace(collector.sampling, temperature=0.0))


def evaluate_prompts(
    collector: Collector,
    prompts: Sequence[Prompt],
    *,
    samples: int = 1,
    seed: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Draw, grade and summarise `samples` completions of every prompt."""
    chunk = max(1, 256 // samples)
    rollouts: list[Rollout] = []
    for start in range(0, len(prompts), chunk):
        requests = [
            Request(
                prompt,
                Context(prompt.tokens),
                derive(seed, "evaluate", prompt.id, k),
                collector.max_new_tokens,
                environment_seed=derive(seed, "evaluate"),
            )
            for prompt in prompts[start : start + chunk]
            for k in range(samples)
        ]
        rollouts += collector.factory.group_rewards(collector.generate(requests))
        progress(min(start + chunk, len(prompts)))
    return replace(summarise(rollouts, samples), verdict=collector.grader.verdict)
