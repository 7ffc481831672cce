"""FATE's identities (arXiv:2605.11882): fronts, accepted repairs, and the round of its phases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cohort import registry
from cohort.axes.repair import accepted, transcript
from cohort.errors import UsageError
from cohort.methods import MethodError
from cohort.reductions.pareto import dominates, pareto_ranks, pareto_scores
from cohort.training.build import prepare
from cohort.training.config import make_config
from cohort.training.loop import one_step
from cohort.types import Batch, Prompt, Request, StepInfo, Turn
from cohort.types.replay import joined
from tests import micro
from tests.golden.guided import FakeSampler, requests_of, text_of
from tests.helpers import rollout_of
from tests.stepping import run_of
from tests.traits import batch_for

SEEDS = st.integers(0, 10_000)
PARETO = StepInfo(step=10, reward_names=("reward0", "reward1", "security", "utility", "refusal"))


def sorted_fronts(seed: int) -> tuple[Batch, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A batch, coarse objectives with ties, which rollouts are valid, and their ranks."""
    batch, g = batch_for("fate", seed=seed), torch.Generator().manual_seed(seed)
    objectives = torch.randint(0, 3, (batch.size, 3), generator=g).double() / 2
    valid = batch["valid"] > 0
    return batch, objectives, valid, pareto_ranks(objectives, valid, batch.groups)


@given(SEEDS)
def test_what_dominates_stands_in_an_earlier_front(seed: int) -> None:
    batch, objectives, valid, rank = sorted_fronts(seed)
    same = batch.group[:, None] == batch.group
    over = dominates(objectives[:, None], objectives) & same & valid[:, None] & valid
    assert bool((rank[:, None] < rank)[over].all())
    assert bool((rank[:, None] > rank)[same & ~valid[:, None] & valid].all())
    for i in (valid & (rank > 0)).nonzero()[:, 0].tolist():
        assert bool((over[:, i] & (rank == rank[i] - 1)).any())


@given(SEEDS)
def test_only_the_order_of_each_objective_matters(seed: int) -> None:
    batch, objectives, valid, rank = sorted_fronts(seed)
    assert torch.equal(rank, pareto_ranks(objectives**3 * torch.tensor([1.0, 7.0, 0.1]), valid, batch.groups))
    scores = pareto_scores(rank, batch.groups)
    assert bool(((scores >= 0) & (scores <= 1)).all())
    assert bool((scores[rank == 0] == 1).all())


@given(SEEDS)
def test_with_one_binary_objective_it_is_grpo(seed: int) -> None:
    batch = batch_for("fate", seed=seed)
    right = batch["accuracy"]
    batch = batch.replace(reward_components=right[:, None]).with_rollouts(valid=torch.ones(batch.size).double())
    info = StepInfo(step=10, reward_names=("exact",))
    ours = registry.method("fate(objectives=('exact',))").bind(info=info).prepare(batch).batch
    theirs = registry.method("grpo").bind(info=info).prepare(batch.replace(rewards=right)).batch
    assert torch.allclose(ours.advantages, theirs.advantages)


@given(SEEDS, st.floats(0, 1))
def test_an_accepted_repair_is_no_worse_anywhere(seed: int, floor: float) -> None:
    g = torch.Generator().manual_seed(seed)
    failed, candidates = torch.rand(3, generator=g), torch.rand(8, 3, generator=g)
    candidates = torch.where(torch.rand(8, 3, generator=g) < 0.5, failed, candidates)
    valid = torch.rand(8, generator=g) < 0.7
    keep = accepted(failed, candidates, valid, torch.full((3,), floor))
    assert not (keep & ~valid).any()
    assert bool((candidates[keep] >= failed).all())
    assert bool((candidates[keep] >= floor).all())
    assert bool((candidates[keep] > failed).any(-1).all())


def test_the_warm_up_term_is_0_and_without_gradient_where_nothing_is_taught() -> None:
    batch = batch_for("fate")
    method = registry.method("fate")
    assert float(method.regularizer[0](batch)) == 0


def repaired(step: int, worth: Any, **hyper: Any) -> tuple[list[Any], FakeSampler]:
    sampler = FakeSampler(worth, step=step)
    draw = sampler.draw

    def graded(requests: Any) -> Any:
        return [each.replace(components={"safe": each.reward}) for each in draw(requests)]

    sampler.draw = graded  # type: ignore[method-assign]
    how = {"objectives": ("safe",), "candidates": 2, **hyper}
    return registry.method("fate", **how).bind().guidance(requests_of(2, 2), sampler), sampler  # type: ignore[arg-type]


def test_failures_are_repaired_with_what_was_wrong_in_the_prompt_and_in_the_first_phase_only() -> None:
    def worth(request: Request) -> float:
        return float(request.prompt.id == "0") or 0.7 * (request.meta.get("repairs") == 2)

    drawn, sampler = repaired(0, worth)
    repairs = [each for each in drawn if each.fields["repair"]]
    assert [each.prompt.id for each in repairs] == ["1"] * 4
    assert [each.fields["accepted"] for each in repairs] == [1.0, 1.0, 0.0, 0.0]
    shown = text_of(sampler.drawn[-1])
    assert "An earlier attempt at this task failed:\n\nsaid " in shown
    assert "What was wrong with it: safe is 0." in shown
    assert len({request.seed for request in sampler.drawn}) == len(sampler.drawn)
    assert not any(each.fields["repair"] for each in repaired(1, worth)[0])


def test_a_transcript_tells_what_tools_answered() -> None:
    prompt = Prompt("p", "p", (2,), "p")
    turns = (
        Turn(0, 1, ({"role": "assistant", "content": "add 1 2"}, {"role": "tool", "content": "3"})),
        Turn(2, 3, ({"role": "assistant", "content": "it is 3"},)),
    )
    made = rollout_of(Request(prompt, (2,), 0, 8), [5, 6, 1], turns=turns, text="add 1 2\n\nit is 3")
    assert transcript(made) == "assistant: add 1 2\ntool: 3\nassistant: it is 3"


def test_a_round_collects_learns_and_goes_on(micro_root: Path) -> None:
    """Every repair passes; the warm-up draws nothing, and what it learnt is likelier behind the plain prompt."""
    scored = f"{Path(__file__).parent / 'judges.py'}:repairs"
    how = "fate(objectives=('repairs',), candidates=2, warmup_steps=2, pareto_steps=1, sft_coef=0.1)"
    with micro.ready(micro_root, how, reward=[scored], group_size=2, steps=5) as (setup, optimizer, progress):
        run = run_of(setup, optimizer, progress)
        steps = [one_step(run) for _ in range(5)]
    assert steps[0].metrics["rollouts/trained"] == 0
    assert [step.metrics["rollouts/sampled"] for step in steps[1:3]] == [0, 0]
    first, second = (step.metrics["loss/repair_likelihood"] for step in steps[1:3])
    assert second < first
    assert steps[3].metrics["rollouts/sampled"] == 16
    assert 0 < steps[3].metrics["loss/repair_likelihood"] < 0.2 * first
    state = next(state for key, state in run.progress.states.items() if key.startswith("curriculum/"))
    plain = {prompt.tokens for prompt in setup.prompts}
    assert {context.tokens for context in joined(state["repairs"]).contexts} <= plain


@pytest.mark.parametrize("others", ["dapo(max_rounds=2):-shaping", "gspo", "dr-grpo"])
def test_it_goes_with_others(micro_root: Path, others: str) -> None:
    how = f"fate(objectives=('exact',), candidates=2, pareto_steps=1, sft_coef=0.1)+{others}"
    with micro.ready(micro_root, how, group_size=4, steps=3, updates=2) as (setup, optimizer, progress):
        results = micro.train(setup, optimizer, progress)
    assert all(step.metrics["skipped_updates"] == 0 for step in results)


def test_wrong_input_is_refused(base: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match="one floor for all of them or one for each"):
        registry.method("fate(floors=(0.5, 0.5))")
    with pytest.raises(UsageError, match="reads the reward 'utility', which this run lacks"):
        prepare(make_config({**base, "method": "fate(objectives=('format', 'utility'))"}), log=lambda _: None)
