"""Thoughts that are cut at budgets, and answered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cohort import registry
from cohort.axes.summaries import budgets_of, of_summaries
from cohort.errors import UsageError
from cohort.training.build import Setup
from cohort.training.loop import Training
from cohort.types import Rollout, StepInfo
from tests import micro
from tests.helpers import in_float64
from tests.stepping import run_of, sample

BUDGETS, EACH = (1, 2, 4), 2


@pytest.fixture
def made(micro_root: Path) -> Iterator[tuple[Setup, Training, list[Rollout]]]:
    method = "brpo(budgets=(1, 2, 4), summaries=2, summary_tokens=3, closing='~', end_of_thinking='<')"
    with micro.ready(micro_root, method, thought=True, prompts_per_step=3, group_size=4) as (setup, _, progress):
        run = run_of(setup, None, progress)
        yield setup, run, sample(run)[0]


def test_a_thought_is_drawn_once_and_its_answers_stand_behind_its_own_cuts(
    made: tuple[Setup, Training, list[Rollout]],
) -> None:
    setup, _, rollouts = made
    renderer = setup.policy.renderer
    assert len(rollouts) == 12
    for rollout in rollouts:
        thought, *answers = rollout.turns
        assert len(answers) == len(BUDGETS) * EACH
        size = thought.end
        assert size <= 4
        assert rollout.fields["thinking_segment"][:size] == [0.0, 1.0, 2.0, 2.0][:size]
        for k, turn in enumerate(answers):
            at = min(BUDGETS[k // EACH], size)
            assert turn.context is not None
            assert turn.context.tokens == (*rollout.request.context.tokens, *rollout.tokens[:at])
            # The closing text is read, and not trained on.
            assert renderer.decode(rollout.tokens[turn.start : turn.start + 1]) == "~"
            assert rollout.mask[turn.start : turn.end] == [0] + [1] * (turn.end - turn.start - 1)
            assert 1 < turn.end - turn.start <= 4
            assert rollout.fields["summary_index"][turn.start : turn.end] == [float(k)] * (turn.end - turn.start)
            # Cuts that the thought did not reach are one and the same.
            assert rollout.fields["summary_cut"][turn.start] == [min(b, size) for b in BUDGETS].index(at)
            right = turn.messages[0]["content"].strip("~") == setup.prompts[0].row["answer"]
            if rollout.prompt.id == setup.prompts[0].id:
                assert rollout.fields["summary_score"][turn.start] == float(right)
        assert rollout.reward == rollout.fields["summary_score"][-1]
    assert len({rollout.id for rollout in rollouts}) == 12
    assert {len(r.turns[0].messages) for r in rollouts} == {1}


def test_what_was_sampled_is_what_the_policy_scores_in_these_contexts(
    made: tuple[Setup, Training, list[Rollout]],
) -> None:
    setup, run, rollouts = made
    width = max(len(r.tokens) for r in rollouts)
    scored = run.trainer.log_probs(setup.policy.actions(rollouts), frozenset({"logp"}), width=width)["logp"]
    for rollout, row in zip(rollouts, scored, strict=True):
        drawn, mask = torch.tensor(rollout.sampler_logp), torch.tensor(rollout.mask).bool()
        assert torch.allclose(row[: len(mask)][mask], drawn[mask], atol=1e-4)


def test_the_batch_has_a_score_of_every_answer(made: tuple[Setup, Training, list[Rollout]]) -> None:
    setup, run, rollouts = made
    in_float64(setup.policy)
    method = setup.method.bind(run.progress.states, run.info(0))
    batch = run.batches.scored(method, rollouts)
    assert batch["summary_scores"].shape == batch["summary_split"].shape == (12, 6)
    for i, rollout in enumerate(rollouts):
        first = [turn.start for turn in rollout.turns[1:]]
        for name, of in (("summary_scores", "summary_score"), ("summary_split", "summary_cut")):
            assert batch[name][i].tolist() == [rollout.fields[of][at] for at in first]  # type: ignore[index]
    advantages = method.prepare(run.batches.complete(method, batch, rollouts)).batch.advantages
    assert bool(advantages.any())
    assert not advantages[~batch.mask].any()
    # Replayed rollouts come from a checkpoint with the same fields.
    assert torch.equal(of_summaries(batch, None)["summary_scores"], batch["summary_scores"])  # type: ignore[arg-type]


def test_an_own_end_of_thinking_is_trained_and_closed_by_what_follows_it(micro_root: Path) -> None:
    """The digits end the thought here: the policy says them itself."""
    method = "brpo(budgets=(6, 7), summaries=1, summary_tokens=2, closing='~0', end_of_thinking='0')"
    with micro.ready(micro_root, method, thought=True, prompts_per_step=8, group_size=4) as (setup, _, progress):
        rollouts = sample(run_of(setup, None, progress))[0]
        ended = [r for r in rollouts if str(r.turns[0].messages[0]["content"]).endswith("0")]
        assert ended
        for rollout in rollouts:
            turn, own = rollout.turns[1], rollout in ended
            begun = rollout.mask[turn.start : turn.end][:2]
            assert begun == ([1, 1] if own else [0, 0])[: len(begun)]
            assert rollout.fields["thinking_segment"][rollout.turns[0].end - 1] == 0


def test_budgets_are_quarters_of_the_limit_or_must_fit_it() -> None:
    assert budgets_of(None, StepInfo(max_new_tokens=8000)) == (2000, 4000, 6000, 8000)
    assert budgets_of((3, 5), StepInfo(max_new_tokens=8)) == (3, 5)
    with pytest.raises(UsageError, match="up to 9 tokens"):
        budgets_of((3, 9), StepInfo(max_new_tokens=8))


def test_a_row_scores_every_answer_as_a_sequence_of_its_own(micro_root: Path) -> None:
    method = "brpo(budgets=(1, 3), summaries=1, summary_tokens=2, closing='~', end_of_thinking='<')"
    with micro.ready(micro_root, method, thought=True, prompts_per_step=1, group_size=2) as (setup, _, progress):
        rollout = sample(run_of(setup, None, progress))[0][0]
        in_float64(setup.policy)
        whole = setup.policy.log_probs(setup.policy.actions([rollout]), width=len(rollout.tokens))["logp"][0]
        for turn in rollout.turns:
            context, tokens = turn.context or rollout.request.context, rollout.tokens[turn.start : turn.end]
            actions = setup.policy.actions_after([context.tokens], [tokens], ())
            want = setup.policy.log_probs(actions, width=len(tokens))["logp"][0]
            assert torch.allclose(whole[turn.start : turn.end], want, atol=1e-10)


def test_the_method_says_what_it_makes() -> None:
    method = registry.method("brpo")
    assert not method.requires
    assert {"summary_scores", "thinking_segment"} <= method.provides
    assert "summary_scores" not in method.drawn
