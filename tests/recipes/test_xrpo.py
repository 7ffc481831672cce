"""XRPO: rollouts where they tell most, solved examples, rare successes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.methods import Method, use
from cohort.recipes.xrpo import likelihood
from cohort.signals.examples import with_examples
from cohort.signals.features import nearest
from cohort.training.loop import one_step
from cohort.types import Request, Rollout
from tests import micro
from tests.helpers import prompt_of, random_batch, request_of, tiny_policy
from tests.stepping import run_of

KEY = "guidance/solved_examples"
SEEDS = st.integers(0, 10_000)


def advantages(name: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[N] of the method, and of plain GRPO."""
    batch = random_batch(seed)
    return tuple(
        registry.method(each).bind().assign(batch)["outcome_advantage"] for each in (name, "grpo(kl_beta=0.0)")
    )  # type: ignore[return-value]


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.floats(0, 5), st.floats(0, 2))
def test_right_rollouts_gain_within_bounds_and_wrong_ones_stay(seed: int, novelty: float, kappa: float) -> None:
    sharp, plain = advantages(f"xrpo(novelty={novelty}, kappa={kappa})", seed)
    right = (random_batch(seed).rewards > 0) & (plain > 0)
    assert torch.equal(sharp[~right], plain[~right])
    assert bool((sharp >= plain - 1e-12).all())
    assert bool((sharp[right] <= (1 + kappa) * plain[right] + 1e-12).all())
    assert float(sharp.sum()) >= -1e-9


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_without_novelty_it_is_the_plain_advantage_and_likely_rollouts_gain_nothing(seed: int) -> None:
    for name in ("xrpo(novelty=0.0)", "xrpo(kappa=0.0)"):
        assert torch.equal(*advantages(name, seed))
    sharp, plain = advantages("xrpo", seed)
    eta = likelihood(random_batch(seed))[1]
    assert torch.equal(sharp[eta >= 1], plain[eta >= 1])


def test_examples_stand_before_the_question_as_far_as_they_fit(micro_root: Path) -> None:
    with micro.ready(micro_root, "xrpo") as (setup, _, progress):
        run = run_of(setup, None, progress)
        renderer, made = setup.policy.renderer, list[Request]()

        def watched(requests: Any, sampler: Any) -> list[Rollout]:
            limit = sampler.context_length
            for room in (lambda: 4, lambda: limit - len(made[0].context) + 1, lambda: limit):
                request = request_of(setup.prompts[0], count=room())
                made.append(with_examples(request, [("b", "3"), ("c", "6")], sampler))
            return sampler.draw(requests)

        method = Method(guidance=use(watched)).bind({}, run.info(0))
        setup.collector.collect(method, setup.prompts[:1], [1], seed=0)
    shown = [renderer.decode(request.context.tokens) for request in made]
    assert shown[0].count("Question:") == 3
    assert shown[0].index("Question:\nb\n\nSolution:\n3") < shown[0].index("Question:\na")
    assert made[0].meta["examples"] == 2
    # With more to say there is room for one of them, and at last for none.
    assert (shown[1].count("Question:"), "examples" in made[2].meta) == (2, False)
    assert made[2].context == request_of(setup.prompts[0]).context


def test_what_nothing_solves_sees_solved_questions_and_stays_in_its_group(micro_root: Path) -> None:
    expression = "xrpo(first=2, rounds=3, min_similarity=-1.0, examples=1)"
    with micro.ready(micro_root, expression, group_size=6, reward=["exact"]) as (setup, optimizer, progress):
        run = run_of(setup, optimizer, progress)
        first = one_step(run)
        state = run.progress.states[KEY]
        second = one_step(run)
        before = {asked for asked, _ in state["solved"]}
    assert len(first.rollouts) == len(second.rollouts) == 8 * 6
    assert not [r for r in first.rollouts if "examples" in r.request.meta]
    solved = {r.prompt.question for r in first.rollouts if r.accuracy}
    assert before == solved
    assert state["features"].shape[0] == len(solved)
    seeded = [r for r in second.rollouts if "examples" in r.request.meta]
    assert seeded
    for rollout in seeded:
        own = [r for r in second.rollouts if r.prompt.id == rollout.prompt.id]
        assert all(not r.reward for r in own[:2])
        assert rollout.request.context != own[0].request.context
        assert not [r for r in own[:2] if "examples" in r.request.meta]


def test_a_function_of_the_users_says_what_is_alike(micro_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("def embed(prompts):\n    return [[1.0, float(ord(p[0]))] for p in prompts]\n")
    with micro.ready(micro_root, f"xrpo(embed='{file}:embed')", group_size=6) as (setup, optimizer, progress):
        run = run_of(setup, optimizer, progress)
        one_step(run)
        state = run.progress.states[KEY]
    assert state["features"].tolist() == [[1.0, float(ord(asked))] for asked, _ in state["solved"]]


def test_nothing_is_like_nothing() -> None:
    assert nearest(torch.ones(2), torch.empty(0, 0), count=2, least=-1.0) == []
    same = torch.ones(3, 2)
    assert nearest(torch.ones(2), same, count=2, least=0.5) == [0, 1]
    assert prompt_of(tiny_policy(), "a").question == "a"


@pytest.mark.parametrize("expression", ["xrpo(first=1)", "xrpo(alpha=0.0)", "xrpo(min_similarity=2.0)"])
def test_ranges(expression: str) -> None:
    with pytest.raises(Exception, match="out of range"):
        registry.method(expression)
