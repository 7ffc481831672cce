"""Training on stored completions: what they are as rollouts, that methods learn from them, and what is refused."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

import cohort
from cohort import registry
from cohort.analysis.configuration import flat
from cohort.data.pairs import Preference, Written
from cohort.errors import UsageError
from cohort.methods import Method, use
from cohort.policies.causal_lm import CausalLM
from cohort.policies.sequences import Sequences
from cohort.rollouts.store import Store
from cohort.training.build import optimizer_of, prepare
from cohort.training.config import make_config, read_config
from cohort.training.display import Display
from cohort.training.loop import one_step
from cohort.training.progress import Progress
from cohort.training.run import Result, train
from cohort.training.sft import completion_tokens
from cohort.types import Batch, Prompt
from cohort.types.declare import declare, needs
from cohort.types.replay import Replay
from tests.stepping import run_of, sample

PAIRS = [
    {"prompt": f"{a}+{b}=", "chosen": str(a + b), "rejected": str(a + b + 1 + a % 2), "labeller": "ab"[a == 1]}
    for a in range(4)
    for b in range(4)
]
LABELLED = [
    {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
    for row in PAIRS
    for side in ("chosen", "rejected")
]
HELD_OUT = [{"prompt": row["prompt"], "answer": row["chosen"]} for row in PAIRS]


@pytest.fixture
def offline(base: dict[str, Any]) -> dict[str, Any]:
    """Keys of a configuration that trains the tiny model on pairs."""
    kept = {k: v for k, v in base.items() if k not in ("data", "reward", "group_size")}
    return {**kept, "pairs": PAIRS, "prompts_per_step": 5, "method": "dpo"}


def run(keys: dict[str, Any], *, resume: bool = False, **changes: Any) -> Result:
    return train(make_config({**keys, **changes}), resume=resume, display=Display(quiet=True))


def margin(folder: Path | str) -> float:
    """Mean log-probability of a right answer over that of the wrong one."""
    policy = CausalLM.load(str(folder))
    sums = []
    for side in ("chosen", "rejected"):
        contexts = tuple(
            torch.tensor(policy.renderer.encode(policy.renderer.render(row["prompt"]), start=True)) for row in PAIRS
        )
        completions = tuple(torch.tensor(completion_tokens(policy.renderer, row[side])) for row in PAIRS)
        with torch.no_grad():
            sums.append(policy.log_probs(Sequences(contexts, completions), width=4)["logp"].sum(1))
    return float((sums[0] - sums[1]).mean())


# what stored completions are ---------------------------------------------------------------------------------------


def store_of(*labels: tuple[float, ...]) -> Store:
    prompts = [Prompt(f"id{i}", f"text {i}", (5, i), f"text {i}") for i in range(len(labels))]
    return Store.of(
        [
            Preference(prompt, tuple(Written(str(k), (k, 1), label) for k, label in enumerate(own)))
            for prompt, own in zip(prompts, labels, strict=True)
        ]
    )


def test_stored_completions_are_rollouts_that_nobody_sampled() -> None:
    store = store_of((1.0, 0.0), (0.0,))
    rollouts = store.rollouts(store.prompts)
    assert [(r.prompt.id, r.reward, r.accuracy, r.fields["preference"]) for r in rollouts] == [
        ("id0", 1.0, 1.0, 1.0),
        ("id0", 0.0, 0.0, -1.0),
        ("id1", 0.0, 0.0, -1.0),
    ]
    assert all(r.mask == [1, 1] and r.finished and r.request.context.tokens == r.prompt.tokens for r in rollouts)
    assert all(math.isnan(x) for r in rollouts for x in (*r.sampler_logp, *r.sampler_entropy))


def test_a_preference_batch_has_every_prompt_once_an_epoch_and_depends_on_the_step_alone() -> None:
    store = store_of(*[(1.0,)] * 7)
    steps = [[r.prompt.id for r in store.draw(3, seed=4, step=step)] for step in range(1, 8)]
    drawn = [name for step in steps for name in step]
    assert sorted(drawn[:7]) == sorted(drawn[7:14]) == [f"id{i}" for i in range(7)]
    assert drawn[:7] != drawn[7:14]
    assert [r.prompt.id for r in store.draw(3, seed=4, step=5)] == steps[4]
    assert [r.prompt.id for r in store.draw(3, seed=5, step=5)] != steps[4]
    # Fewer prompts than a step takes: each once.
    assert sorted(r.prompt.id for r in store.draw(20, seed=4, step=2)) == [f"id{i}" for i in range(7)]


# a run -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    def sampled(*_: Any) -> Any:
        raise AssertionError("a stored completion was sampled")

    monkeypatch.setattr("cohort.engine.native.engine.NativeEngine.generate", sampled)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("dpo", {}),
        ("dpo", {"updates": 2, "epochs": 2, "micro_tokens": 40}),
        ("kto", {"pairs": LABELLED}),
        ("kto(balance=1.0)", {}),
        ("power-dl", {}),
        ("group-robust-po(base='dpo', beta=0.1)", {}),
    ],
)
def test_methods_of_preferences_learn_from_a_file(
    offline: dict[str, Any], no_sampling: None, method: str, changes: dict[str, Any]
) -> None:
    """What was chosen becomes likelier against what was rejected, and nothing is sampled for it."""
    result = run(offline, **{"method": method, "steps": 10, **changes})
    assert result.model is not None
    assert margin(result.model) > margin(offline["model"]) + 0.5


def test_what_only_sampling_knows_is_not_reported(offline: dict[str, Any]) -> None:
    result = run(offline)
    for row in result.metrics:
        assert row["mismatch"] is None
        assert row["entropy"] is None
        assert (row["tokens"], row["reward/mean"], row["reward/label"], row["accuracy"]) == (0, 0.5, 0.5, 0.5)
        assert row["rollouts/sampled"] == row["rollouts/trained"] == 10
        assert row["loss"] > 0
    assert result.metrics[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    table = pq.read_table(result.folder / "rollouts" / "step-000001.parquet").to_pylist()
    assert {(row["prompt"], row["completion"], row["reward"]) for row in table} < {
        (f"<|user|>{row['prompt']}<|assistant|>", row[side], float(side == "chosen"))
        for row in PAIRS
        for side in ("chosen", "rejected")
    }
    assert all(math.isnan(x) for row in table for x in row["sampler_logp"])
    assert json.loads((result.folder / "summary.json").read_text())["sampled_tokens"] == 0


@pytest.mark.parametrize("method", ["dpo", "kto(balance=1.0)", "power-dl+lion", "group-robust-po(step_size=0.01)"])
def test_a_stopped_run_continues_bit_for_bit(offline: dict[str, Any], tmp_path: Path, method: str) -> None:
    def numbers(result: Result) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in result.metrics]

    keys = {**offline, "method": method, "steps": 5, "updates": 2}
    whole = run(keys, out=str(tmp_path / "whole"))
    display = Display(quiet=True)
    display.step = lambda step, *a, **k: signal.raise_signal(signal.SIGINT) if step == 3 else None  # type: ignore[method-assign]
    assert train(make_config(keys), display=display).stopped
    resumed = run(keys, resume=True)
    assert numbers(resumed) == numbers(whole)
    first, second = (Path(r.folder, "final", "model.safetensors").read_bytes() for r in (whole, resumed))
    assert first == second


def test_the_stored_configuration_runs_again(offline: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    first = run(offline, pairs=str(path))
    stored = flat(read_config(first.folder / "config.yaml"))
    assert (stored["pairs"], stored["data"], stored["reward"]) == (str(path), None, [])
    again = train(make_config(stored, {"out": str(tmp_path / "again")}), display=Display(quiet=True))
    assert [row["loss"] for row in again.metrics] == [row["loss"] for row in first.metrics]
    assert run(offline, out=str(tmp_path / "rows")).metrics[-1]["loss"] == first.metrics[-1]["loss"]


def test_from_python(offline: dict[str, Any], tmp_path: Path) -> None:
    result = cohort.train(
        "dpo",
        model=offline["model"],
        pairs=iter(PAIRS),
        steps=1,
        prompts_per_step=2,
        out=str(tmp_path / "python"),
        quiet=True,
        tensorboard=False,
    )
    assert result.metrics[0]["rollouts/sampled"] == 4
    assert read_config(result.folder / "config.yaml")["dataset"]["pairs"] == "<16 rows given from Python>"


def test_held_out_prompts_are_sampled_and_rewarded_and_not_trained_on(offline: dict[str, Any]) -> None:
    held = HELD_OUT[:6]
    result = run(offline, eval_data=held, eval_every=2, reward="number", max_new_tokens=6, steps=3, prompts_per_step=20)
    assert result.before is not None
    assert result.after is not None
    assert result.before.problems == result.after.problems == 6
    assert "eval/accuracy" in result.metrics[1]
    assert result.summary["sampled_tokens"] == 0
    assert result.metrics[0]["rollouts/sampled"] == 2 * 10
    table = pq.read_table(result.folder / "rollouts" / "step-000001.parquet").to_pylist()
    assert not {row["prompt"] for row in table} & {f"<|user|>{row['prompt']}<|assistant|>" for row in held}


@needs("old_logp")
@declare(offline=True, couples=True, group_size=2)
def away(batch: Batch) -> torch.Tensor:
    """How far the policy is from where the step began, and a push."""
    assert not batch["old_logp"].isnan().any()
    gap = (batch.logp - batch["old_logp"]).abs().sum()
    assert bool(gap > 0) == away.moved, "old_logp is that of the policy as the step began"  # type: ignore[attr-defined]
    away.moved = True  # type: ignore[attr-defined]
    return -batch.logp.sum()


def test_old_log_probabilities_are_scored_where_a_step_has_several_updates(offline: dict[str, Any]) -> None:
    """By the policy as the step began: nobody sampled the completions."""
    for epochs in (1, 3):
        away.moved = False  # type: ignore[attr-defined]
        keys = make_config({**offline, "epochs": epochs, "prompts_per_step": 2})
        setup = prepare(keys, method=Method(objective=use(away), name="away"), log=lambda _: None)
        try:
            result = one_step(run_of(setup))
        finally:
            setup.close()
        assert result.metrics["skipped_updates"] == 0


# rollouts and stored completions together --------------------------------------------------------------------------


def test_a_preference_batch_stands_beside_the_rollouts(base: dict[str, Any]) -> None:
    """With every field that they have: 0 where only rollouts can have it, and scored where anything can."""
    keys = {**base, "method": "f-hal", "pairs": PAIRS, "prompts_per_step": 3}
    setup = prepare(make_config(keys), log=lambda _: None)
    try:
        optimizer_of(setup)
        progress = Progress(states=setup.method.init(size=len(setup.prompts)))
        training = run_of(setup, None, progress)
        sampled, kept, method = sample(training)
        batch = training.batches.scored(method, sampled)
        batch = method.assign(training.batches.complete(method, batch, kept))
        assert batch["preference"].tolist() == [0.0] * 12

        def beside(step: int) -> Replay:
            drawn = training.source.next(training.info(step), method.states)
            (stored,) = training.batches.auxiliary_replays(method, batch, drawn.auxiliary)
            return stored

        stored = beside(0)
        assert set(batch.names) <= set(stored.batch.names)
        assert stored.batch["preference"].tolist() == [1.0, -1.0] * 3
        assert not stored.batch["advantages"].any()
        assert not stored.batch["sampler_logp"].any()
        assert stored.batch["reward_components"].shape == (6, 2)
        assert (stored.batch["ref_logp"][stored.batch.mask] < 0).all()
        other = beside(1)
        assert other.contexts != stored.contexts
        same = beside(0)
        assert same.contexts == stored.contexts
    finally:
        setup.close()


def test_a_hybrid_run_continues_bit_for_bit(base: dict[str, Any], tmp_path: Path) -> None:
    keys = {**base, "method": "f-hal", "pairs": PAIRS, "steps": 4, "checkpoint": {"every": 2, "keep": 2}}
    whole = run(keys, out=str(tmp_path / "whole"))
    half = run({**keys, "steps": 2})
    assert half.summary["steps"] == 2
    resumed = run(keys, resume=True)
    first, second = (Path(r.folder, "final", "model.safetensors").read_bytes() for r in (whole, resumed))
    assert first == second


# what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"method": "grpo"},
            r"'grpo' learns from rollouts of its own, .*name prompts with --data, or take one of .*dpo.*kto",
        ),
        ({"method": "f-hal"}, "'f-hal' draws rollouts as well: name their prompts with --data, and a --reward"),
        (
            {"method": "f-hal", "pairs": None, "data": PAIRS},
            "learns from a preference batch in addition .*: name its file with",
        ),
        ({"data": PAIRS}, "'dpo' learns from one batch a step, but both --data and --pairs were given: leave one out"),
        ({"pairs": None}, "no data was given: --data takes"),
        (
            {"method": "dpo+s-grpo"},
            r"fills the axis 'sampling' \(.*\), which draws rollouts, but with --pairs none are drawn",
        ),
        ({"method": "dpo+knapsack"}, r"fills the axis 'budget' \(knapsack_budget\), which draws rollouts"),
        ({"old_logp": "sampler"}, "old_logp = sampler: the completions of --pairs were not sampled; use auto or score"),
        ({"method": "dpo+gtpo:credit"}, r"\(conflict_credit\) reads 'old_entropy', what the sampling policy said"),
        (
            {"pairs": LABELLED[:1] * 3},
            "'dpo' compares completions of one prompt, but no prompt of pairs has a good and .*kto",
        ),
        ({"method": "group-robust-po(column='who')"}, r"reads the column 'who', which row 1 of the pairs lacks"),
        ({"eval_data": PAIRS}, "eval_data was given, but no reward to measure it with: name one with --reward"),
        ({"eval_data": HELD_OUT, "reward": "number"}, "every training prompt is also in eval_data"),
        ({"pairs": []}, "has no rows"),
    ],
)
def test_what_cannot_be_learnt_from_pairs_is_refused(
    offline: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run(offline, **changes)
    assert not Path(offline["out"]).exists()


def test_every_method_that_says_so_can_learn_from_pairs(offline: dict[str, Any]) -> None:
    names = [name for name in registry.names() if registry.method(name).offline]
    assert {"dpo", "kto", "power-dl", "group-robust-po"} <= set(names)
    for name in names:
        result = run(offline, method=name, steps=1, out=f"{offline['out']}-{name}")
        assert result.metrics[0]["grad_norm"] > 0, name
