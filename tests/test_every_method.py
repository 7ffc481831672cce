"""`cohort train SLUG` for every method, ten steps on the embedded model: long, so outside the suite.

    make test-exhaustive

prints a table at the end: method, sampled accuracy at the first and the last steps, gradient norm, seconds.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cohort import registry
from cohort.cli import app
from cohort.data.prompts import PromptSpec, load_prompts
from cohort.policies import toy as model
from cohort.training import toy

TRAINABLE = [name for name in registry.names() if not registry.method(name).requires]
STEPS = 10
REWARDS = Path(__file__).with_name("every_method_rewards.py")
# What a method that reads a judge's reward or a column of the data is given beside the embedded task.
JUDGES = {
    "fapo": ["flawed"],
    "mcot-consistency": ["consistent"],
    "rubric-rewards": ["rubric"],
    "posterior-grpo": ["formatted", "thinking"],
    "ssl-sweet-spot": ["proximity"],
    "dagrpo": ["proximity"],
    "multi-objective-grpo": ["proximity", "thinking"],
    "rluf": ["proximity", "thinking", "formatted"],
}
# The embedded model never learnt to read a draft: nothing that it says behind one is right, but some of it is short. Neither
# did it learn to write boxes or letters.
REWARD = {
    "igrpo": ["task", "length"],
    "prs": ["task", "0*overlap"],
    **{key: ["task"] for key in ("crpo", "math-verifiers", "wirelessmathlm")},
}
HYPER = {
    "arspo": "(maps=('identity', 'exp'))",
    "brpo": "(summaries=2, summary_tokens=8, closing=' = ')",
    "capo-genprm": f"(judge='{REWARDS}:wrong_steps')",
    "dagrpo": "(score='proximity')",
    "fate": "(objectives=('task',), pareto_steps=4)",
    "group-robust-po": "(column='task')",
    "info-consistency": "(column='task', information='number', w_stable=0.0)",
    "multi-objective-grpo": "(objectives=('task', 'proximity', 'thinking'))",
    "intervened-po": "(cue='maybe', triggers=('1',))",
    "posterior-grpo": "(format='formatted')",
    "rluf": "(helpfulness='proximity', safety='thinking', love='formatted')",
    "rank-grpo": "(num_items=1)",
    "rubric-rewards": "(gap_every=4, gap_samples=2)",
    "rest-grpo": "(tasks=40, samples=4)",
    "veripo": "(format=None, grpo_steps=4, dpo_steps=2)",
    # Every prompt of the data set is tried each time.
    "vas": "(scoring_rollouts=2, refresh=10)",
    "rgr-grpo": f"(judge='{REWARDS}:satisfied')",
    "scaf-grpo": "(warmup_steps=0)",
}
COLUMNS = (
    "arspo",
    "dagrpo",
    "f-hal",
    "ghpo",
    "group-robust-po",
    "guide",
    "info-consistency",
    "policy-rollout",
    "rank-grpo",
    "rgr-grpo",
    "rubric-rewards",
    "sage",
    "scaf-grpo",
)


def with_columns(path: Path) -> Path:
    """The embedded task's problems with further columns, in a file."""
    spec = PromptSpec(template=toy.TEMPLATE, max_new_tokens=32)
    rows = [
        dict(p.row) for p in load_prompts(toy.TRAIN.replace("size=4000", "size=400"), model.toy(seed=0).renderer, spec)
    ]
    with path.open("w", encoding="utf-8") as file:
        for i, row in enumerate(rows):
            solution, kept = toy.worked_out(row), {"answer": row["answer"], "items": [row["answer"]], "task": i % 2}
            kept |= {"knowledge": ["+ adds, - takes away"], "planning": [], "steps": solution.split("=")[:-1]}
            kept |= {"hint": solution.split("=")[0], "document": "Work step by step."}
            kept |= {"rubric": [{"criterion": "right", "factual": True}, {"criterion": "worked out"}]}
            prompt = f"{row['metadata']['expression']} ="
            pair = {"chosen": solution, "rejected": f"maybe {int(row['answer']) + 1}"}
            file.write(json.dumps({"prompt": prompt, "solution": solution, **kept, **pair}) + "\n")
    return path


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", TRAINABLE)
def test_it_trains_from_the_command_line(
    name: str, toy_cache: Path, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    command = ["train", name + HYPER.get(name, ""), "--steps", str(STEPS), "--out", str(tmp_path / "run")]
    if name in COLUMNS:
        command += ["--data", str(with_columns(tmp_path / "rows.jsonl")), "--reward", "number", "--lr", "1e-4"]
        command += ["--prompts-per-step", "24", "--group-size", "8", "--max-new-tokens", "32"]
        command += ["--pairs", str(with_columns(tmp_path / "pairs.jsonl"))] if name == "f-hal" else []
    elif name in JUDGES:
        command += ["--reward", "task"]
    for reward in REWARD.get(name, []):
        command += ["--reward", reward]
    for judge in JUDGES.get(name, []):
        command += ["--reward", f"0*{REWARDS}:{judge}"]
    command += ["--set", "eval_size=20", "--set", "tensorboard=false"]
    start = time.monotonic()
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert all(row["skipped_updates"] == 0 for row in rows)
    norms = [row["grad_norm"] for row in rows if row.get("grad_norm") is not None]
    assert norms
    assert all(math.isfinite(norm) for norm in norms)
    assert max(norms) > 0
    early, late = (statistics.mean(row["accuracy"] for row in part) for part in (rows[:3], rows[-3:]))
    seconds = time.monotonic() - start
    record_property(
        "sweep", f"{name:24} {early:6.1%} -> {late:6.1%}   grad {statistics.median(norms):9.3g}   {seconds:5.1f} s"
    )
