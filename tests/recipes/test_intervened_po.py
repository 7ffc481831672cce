"""Intervened preference optimisation (arXiv:2509.24393): what counts of a pair, turning points, interventions."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cohort import registry
from cohort.axes.intervention import first_cue
from cohort.errors import UsageError
from cohort.methods import MethodError
from cohort.recipes.intervened_po import parts
from cohort.signals.turning import first_run, first_safe, sentence_of, sentences, tokens_before, turning_points
from cohort.training.loop import one_step
from cohort.types import Rollout
from tests import micro
from tests.helpers import random_batch
from tests.recipes.steps import pairs_batch
from tests.stepping import run_of

SEEDS = st.integers(0, 10_000)


def pairs(seed: int) -> tuple[Any, torch.Tensor]:
    """Six rollouts as three pairs, each with a place of divergence of its own; and their logp as a leaf."""
    batch = pairs_batch(random_batch(seed, groups=(6,), interleave=False))
    leaf = batch.stored("logp").clone().requires_grad_()
    at = torch.randint(0, 5, (3,), generator=torch.Generator().manual_seed(seed)).double().repeat_interleave(2)
    return batch.replace(logp=leaf).with_rollouts(pair=batch.group.double() + 1, divergence=at), leaf


@given(SEEDS, st.floats(0.01, 2), st.floats(0, 1))
def test_nothing_before_the_divergence_has_a_gradient(seed: int, beta: float, weight: float) -> None:
    batch, leaf = pairs(seed)
    (grad,) = torch.autograd.grad(registry.method("intervened-po", beta=beta, sft_weight=weight).objective(batch), leaf)
    before = torch.arange(grad.shape[1]) < batch["divergence"][:, None]
    assert not grad[before | ~batch.mask].any()
    after = batch.mask & ~before
    assert bool((grad[after & (batch.rewards > 0)[:, None]] < 0).all())
    assert bool((grad[after & (batch.rewards == 0)[:, None]] > 0).all())


@given(SEEDS, st.floats(0.01, 2))
def test_from_the_first_token_and_without_likelihood_it_is_dpo(seed: int, beta: float) -> None:
    batch, leaf = pairs(seed)
    batch = batch.with_rollouts(divergence=torch.zeros(batch.size))
    ours = registry.method("intervened-po", beta=beta, sft_weight=0.0).objective(batch)
    theirs = registry.method("dpo", beta=beta).objective(batch)
    assert torch.allclose(ours, theirs)
    assert torch.allclose(*(torch.autograd.grad(loss, leaf, retain_graph=True)[0] for loss in (ours, theirs)))


@given(SEEDS)
def test_a_shared_beginning_leaves_the_preference_as_it_is(seed: int) -> None:
    batch, _ = pairs(seed)
    first = torch.arange(batch.size) - torch.arange(batch.size) % 2
    shared = (torch.arange(batch.mask.shape[1]) < batch["divergence"][:, None]).double()
    values = {}
    for name in ("logp", "ref_logp"):
        own = batch.stored(name).detach()
        values[name] = torch.where(shared > 0, own[first], own)
    same = batch.replace(mask=torch.where(shared > 0, batch.mask[first], batch.mask), **values)
    whole = same.with_rollouts(divergence=torch.zeros(batch.size))
    assert torch.allclose(parts(same, beta=0.3)["margin"], parts(whole, beta=0.3)["margin"])


@given(st.lists(st.floats(0, 1), max_size=8), st.integers(1, 4))
def test_turning_points_hold_for_a_window(ratios: list[float], window: int) -> None:
    trigger, cue = turning_points(ratios, mu=0.6, eta=0.4, window=window)
    for found, holds in ((trigger, [r >= 0.6 for r in ratios]), (cue, [r <= 0.4 for r in ratios])):
        assert found == first_run(holds, window)
        if found >= 0:
            assert all(holds[found : found + window])
        assert not any(all(holds[i : i + window]) for i in range(found if found >= 0 else len(holds)))


@given(st.text("ab .!?\n", max_size=30))
def test_sentences_cover_what_is_said(text: str) -> None:
    spans = sentences(text)
    assert all(text[a:b].strip() for a, b in spans)
    assert all(b <= c for (_, b), (c, _) in pairwise(spans))
    inside = "".join(text[a:b] for a, b in spans)
    assert inside.count("a") == text.count("a")


def test_places_in_texts() -> None:
    said = "Sure. First, do 1.5 of it! Yes"
    assert [said[a:b] for a, b in sentences(said)] == ["Sure. ", "First, do 1.5 of it! ", "Yes"]
    assert [sentence_of([0, 3, 5], place) for place in (0, 2, 3, 4, 9)] == [0, 0, 1, 1, 2]
    assert [first_safe(safe, 2) for safe in ([0, 1], [0, 0, 1], [1], [])] == [2, -1, 1, -1]
    words = ["ab", "c", "def"]
    assert [tokens_before(place, 3, lambda n: "".join(words[:n])) for place in range(7)] == [0, 0, 1, 2, 2, 2, 3]


class Judging:
    """A sampler that only judges."""

    def judge(self, judge: Any, prompts: Any, **texts: Any) -> list[Any]:
        return [judge(said) for said in texts["sentences"]]


def test_cues_are_found_by_a_pattern_or_by_a_function(micro_root: Path) -> None:
    with micro.ready(micro_root, "grpo", steps=1) as parts_:
        rollouts = one_step(run_of(*parts_)).rollouts[:3]
    said = ["Hm. Sure, here it is.", "No.", ""]
    spoken: list[Rollout] = [r.replace(text=text) for r, text in zip(rollouts, said, strict=True)]
    assert first_cue(spoken, Judging(), detector=None, cue="Sure|it") == [1, None, None]  # type: ignore[arg-type]
    asked = first_cue(spoken, Judging(), detector=lambda own: len(own) - 1, cue="")  # type: ignore[arg-type]
    assert asked == [1, 0, None]


HOW = "intervened-po(cue='[0-9]', triggers=('~',), max_rounds=2"


def test_interventions_make_pairs_whose_loss_begins_at_log_2_and_falls(micro_root: Path) -> None:
    with micro.ready(micro_root, HOW + ", sft_weight=0.0)", thought=True, group_size=4, steps=12) as parts_:
        steps = micro.train(*parts_)
    assert steps[0].metrics["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert all(step.metrics["skipped_updates"] == 0 for step in steps)
    assert sum(step.metrics["loss"] for step in steps[-3:]) < 3 * 0.98 * math.log(2)


def test_triggers_are_mined_and_benign_prompts_make_pairs(micro_root: Path) -> None:
    rows = [{**row, "harmless": i % 2} for i, row in enumerate(micro.ROWS)]
    how = HOW + ", benign='harmless', benign_from=0.0, mine=2, samples=2, window=1, mu=0.5)"
    with micro.ready(micro_root, how, data=rows, thought=True, group_size=6, steps=2) as parts_:
        run = run_of(*parts_)
        results = [one_step(run) for _ in range(2)]
    state = next(state for key, state in run.progress.states.items() if key.startswith("guidance/"))
    assert len(state["triggers"]) == 1
    assert all(math.isfinite(step.metrics["loss"]) for step in results)
    assert results[0].metrics["loss"] > 0


@pytest.mark.parametrize("others", ["dapo:filter", "gdpo", "grpo:regularizer"])
def test_it_goes_with_others(micro_root: Path, others: str) -> None:
    with micro.ready(micro_root, f"{HOW})+{others}", thought=True, group_size=4, steps=2, updates=2) as parts_:
        results = micro.train(*parts_)
    assert all(step.metrics["skipped_updates"] == 0 for step in results)


def test_wrong_input_is_refused(micro_root: Path) -> None:
    with pytest.raises(MethodError, match="is no regular expression"):
        registry.method("intervened-po", cue="(")
    with pytest.raises(MethodError, match="needs triggers"):
        registry.method("intervened-po(triggers=())")
    with (
        pytest.raises(UsageError, match="reads the reward 'harmless'"),
        micro.ready(micro_root, "intervened-po(safe='harmless')"),
    ):
        pass
    with pytest.raises(UsageError, match=r"judge 'x'|detector"), micro.ready(micro_root, "intervened-po(detector='x')"):
        pass
