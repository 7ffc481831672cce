"""RGR-GRPO's identities (arXiv:2511.12344): rubrics as rewards, and what is shown of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.errors import UsageError
from cohort.methods import MethodError
from cohort.signals.rubrics import Criterion, rubric_of, rubric_reward
from tests import micro
from tests.golden.adapters.rgr_grpo import assessed, rubric
from tests.golden.guided import FakeSampler, guided, requests_of
from tests.recipes import judges
from tests.recipes.steps import update_of
from tests.stepping import run_of, sample
from tests.traits import batch_for

MARKS = st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=3), min_size=2, max_size=4)
RUBRICS = st.lists(st.tuples(st.floats(0.1, 5), st.booleans()), min_size=3, max_size=3)


@settings(max_examples=30, deadline=None)
@given(marks=MARKS, weighed=RUBRICS)
def test_rewards_lie_in_0_1_and_above_the_share_of_the_weights(marks: list[list[int]], weighed: Any) -> None:
    criteria = [Criterion("x", weight, factual) for weight, factual in weighed]
    met = torch.tensor(marks).bool()
    reward = rubric_reward(met, criteria)
    share = rubric_reward(met, [each._replace(factual=False) for each in criteria])
    assert ((reward >= 0) & (reward <= 1) & (reward >= share)).all()
    factual = torch.tensor([each.factual for each in criteria])
    if factual.any():
        assert (reward[met[:, factual].all(1)] == 1).all()


@settings(max_examples=30, deadline=None)
@given(marks=MARKS, weighed=RUBRICS)
def test_the_last_is_refined_unless_the_first_of_the_best_satisfies_everything(
    marks: list[list[int]], weighed: Any
) -> None:
    (members,), (last,) = assessed([marks], *zip(*weighed, strict=True))
    rewards = [r.reward for r in members[:-1]]
    best = marks[rewards.index(max(rewards))]
    assert (last.context.tokens == last.prompt.tokens) == all(best)
    refined = members[-1]
    assert refined.fields.get("refined", 0.0) == float(not all(best))
    # It is trained on behind the plain prompt, and has to be scored there.
    assert refined.request.context.tokens == refined.prompt.tokens
    assert (refined.segments[0].logp is None) == (not all(best))
    assert [r.logged["lacks"].count("<<") for r in members[:-1]] == [row.count(0) for row in marks]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_without_gamma_or_refinement_it_is_grpo_unclipped(seed: int) -> None:
    batch = batch_for("rgr-grpo", seed=seed)
    plain = batch.with_rollouts(refined=torch.zeros(batch.size))
    for made, how in ((batch, "rgr-grpo(gamma=0.0,aggregation='seq')"), (plain, "rgr-grpo(aggregation='seq')")):
        loss, grads, _ = update_of(how, made)
        # Nothing is clipped below 0 nor below 1e9.
        grpo, expected, _ = update_of("grpo(kl_beta=0.0,clip_low=1.0,clip_high=1e9)", made)
        assert torch.allclose(loss, grpo, atol=1e-12)
        assert torch.allclose(grads["logp"], expected["logp"], atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), gamma=st.floats(0.01, 0.9))
def test_the_current_denominator_weighs_unlikely_tokens(seed: int, gamma: float) -> None:
    """d/dlogp of pi / (pi + gamma) is gamma pi / (pi + gamma)^2, times -A."""
    batch = batch_for("rgr-grpo", seed=seed).with_rollouts(refined=torch.ones(12))
    _, grads, ready = update_of(f"rgr-grpo(gamma={gamma},shaper_denominator='current')", batch)
    pi = ready.logp.exp()
    expected = -ready.advantages * gamma * pi / (pi + gamma) ** 2 / ready.size
    assert torch.allclose(grads["logp"], torch.where(ready.mask, expected, 0.0), atol=1e-12)
    far = batch.replace(logp=torch.full_like(batch.logp, -400.0), old_logp=torch.full_like(batch.logp, -300.0))
    for how in ("rgr-grpo", "rgr-grpo(gamma=0.0)", "rgr-grpo(shaper_denominator='current')"):
        assert torch.isfinite(update_of(how, far)[1]["logp"]).all()


def test_a_group_of_one_is_drawn_as_it_is() -> None:
    sampler = FakeSampler(lambda r: 0.0, answers=lambda text: "No." if "<<1>>" in text else "Yes, it does.")
    asked = requests_of(1, 1, rubric=[rubric([1.0, 3.0], [0, 0])])
    (members,) = guided(registry.method("rgr-grpo"), asked, sampler).values()
    assert sampler.drawn == asked
    # The policy judged itself, a question for each criterion.
    assert [r.reward for r in members] == [0.25]
    assert len(sampler.asked) == 2


@pytest.mark.parametrize("said", [[], [[1]], [["yes", "no"]], [None], ["11"]])
def test_a_verdict_that_cannot_be_read_is_a_no(said: list[Any]) -> None:
    sampler = FakeSampler(lambda r: 1.0)
    sampler.judge = lambda judge, prompts, **texts: (said or [[0, 0]]) * len(prompts)  # type: ignore[attr-defined]
    asked = requests_of(1, 1, rubric=[rubric([1.0, 3.0], [0, 0])])
    (members,) = guided(registry.method("rgr-grpo", judge="x.py:y"), asked, sampler).values()
    assert [r.reward for r in members] == [0.0]


@pytest.mark.parametrize(
    "value",
    [None, [], "text", [1], [{"weight": 1}], [{"criterion": "a", "weight": 0}], [{"criterion": "a", "factual": 2}]],
)
def test_what_is_no_rubric_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match=r"row 4: a rubric is a list of"):
        rubric_of(value, "row 4")


def test_gamma_is_needed_with_the_current_denominator() -> None:
    with pytest.raises(MethodError, match="is 1 without gamma"):
        registry.method("rgr-grpo(gamma=0.0,shaper_denominator='current')")


def test_bad_rubrics_and_judges_are_told_before_sampling(micro_root: Path) -> None:
    rows = [*micro.ROWS[:-1], {**micro.ROWS[-1], "rubric": [{"criterion": "a", "weight": -1}]}]
    bad = pytest.raises(UsageError, match="row 8 of the training data, column 'rubric'")
    with bad, micro.ready(micro_root, "rgr-grpo", data=rows) as (setup, _, _):
        setup.method.init(size=8, rows=[prompt.row for prompt in setup.prompts])
    missing = pytest.raises(UsageError, match="absent")
    with missing, micro.ready(micro_root, f"rgr-grpo(judge='{judges.__file__}:absent')"):
        pass


def test_it_trains_by_the_rubric_alone(micro_root: Path) -> None:
    """The run's own reward counts for nothing."""
    how = f"rgr-grpo(judge='{judges.__file__}:satisfied')"
    given = {"group_size": 3, "steps": 6, "reward": ["0*length"]}
    with micro.ready(micro_root, how, **given) as (setup, optimizer, progress):
        rollouts, _, _ = sample(run_of(setup, optimizer, progress))
        assert {1 / 3, 1.0} <= {r.reward for r in rollouts} <= {0.0, 1 / 3, 1.0}
        assert {bool(r.fields.get("refined")) for r in rollouts} == {False, True}
        results = micro.train(setup, optimizer, progress)
    assert all(step.metrics["skipped_updates"] == 0 for step in results)
    assert max(step.metrics["mismatch_max"] for step in results) < 1e-4
