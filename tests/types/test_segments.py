"""Rollouts of segments: what is derived from them, and what happens to actions that were not drawn where they are trained."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cohort.engine.base import context_of
from cohort.rollouts.keeping import restored, stored
from cohort.training.build import prepare
from cohort.training.config import make_config
from cohort.training.outcome import mismatch
from cohort.types import Context, Prompt, Request, Rollout, Segment, Turn, head
from tests.helpers import tiny_policy
from tests.stepping import run_of, sample

REQUEST = Request(Prompt("p", "p", (1, 2), "p"), (1, 2), 0, 8)


@st.composite
def segments(draw: Any) -> tuple[Segment, ...]:
    out = []
    for version in range(draw(st.integers(0, 4))):
        count = draw(st.integers(0, 4))
        writer = draw(st.sampled_from(["policy", "environment", "method"]))
        drawn = writer == "policy" and draw(st.booleans())
        numbers = tuple(-float(i + 1) for i in range(count)) if drawn else None
        out.append(Segment(tuple(range(count)), writer, numbers, numbers, version=version))
    return tuple(out)


@given(made=segments(), count=st.integers(0, 20))
def test_a_head_is_the_first_actions_with_all_that_is_known_of_them(made: tuple[Segment, ...], count: int) -> None:
    whole, cut = Rollout(REQUEST, made), Rollout(REQUEST, head(made, count))
    for name in ("tokens", "mask", "versions"):
        assert getattr(cut, name) == getattr(whole, name)[:count]
    for name in ("sampler_logp", "sampler_entropy"):
        assert getattr(cut, name) == pytest.approx(getattr(whole, name)[:count], nan_ok=True)


def test_only_the_policys_actions_count_and_only_drawn_ones_are_known() -> None:
    rollout = Rollout(
        REQUEST,
        (
            Segment((5, 6), logp=(-1.0, -2.0), entropy=(0.1, 0.2), version=3),
            Segment((7,), "environment"),
            Segment((8,), "method"),
            Segment((9, 9), version=4),
        ),
    )
    assert rollout.tokens == [5, 6, 7, 8, 9, 9]
    assert rollout.mask == [1, 1, 0, 0, 1, 1]
    assert rollout.versions == [3, 3, 0, 0, 4, 4]
    assert rollout.sampler_logp[:4] == [-1.0, -2.0, 0.0, 0.0]
    assert all(map(math.isnan, rollout.sampler_logp[4:]))
    elsewhere = rollout.unscored()
    assert elsewhere.tokens == rollout.tokens
    assert [math.isnan(value) for value in elsewhere.sampler_logp] == [bool(m) for m in rollout.mask]


@pytest.mark.parametrize("choice", ["auto", "sampler"])
def test_what_was_not_drawn_in_its_context_is_scored_there(tmp_path: Any, choice: str) -> None:
    """A rollout of one prompt that is trained on in the context of another does not keep the sampler's numbers."""
    tiny_policy().save(tmp_path / "model")
    rows = [{"prompt": f"{a}+1=", "answer": "1"} for a in range(4)]
    config = make_config(
        {
            "model": str(tmp_path / "model"),
            "data": rows,
            "reward": "format:1",
            "prompts_per_step": 2,
            "group_size": 3,
            "max_new_tokens": 6,
            "old_logp": choice,
            "updates": 2,
        }
    )
    setup = prepare(config, log=lambda _: None)
    try:
        run = run_of(setup)
        rollouts, _, method = sample(run)
        hint = setup.policy.renderer.encode("as I said: ")
        moved = rollouts[0].unscored()
        context = (*moved.request.context, *hint)
        rollouts[0] = moved.replace(request=replace(moved.request, context=context))
        sequences = setup.policy.actions(rollouts)
        batch = run.batches.with_old_logp(run.batches.of(method, rollouts), rollouts)
        scored = setup.policy.log_probs(sequences, width=batch.mask.shape[1], temperature=1.0)["logp"].detach()
    finally:
        setup.close()
    assert float((batch.old_logp - scored)[batch.mask].abs().max()) < 1e-5
    # The others keep the sampler's own, to the last bit.
    assert torch.equal(batch.old_logp[1:], batch["sampler_logp"][1:])
    assert mismatch(batch.replace(logp=scored))[1] < 1e-5


# pieces ------------------------------------------------------------------------------------------------------------------

FIRST, SECOND, THIRD = Context((1, 2)), Context((1, 2, 7)), Context((5,))


def of_pieces() -> Rollout:
    """Turns [0, 3), [3, 5) and, behind what the environment says, [6, 8), then one that was begun anew: [8, 9)."""
    turns = (Turn(0, 3), Turn(3, 5, context=SECOND), Turn(6, 8), Turn(8, 9, context=THIRD))
    segments = (Segment((11, 12, 13)), Segment((14, 15)), Segment((16,), "environment"), Segment((17, 18, 19)))
    request = Request(Prompt("p", "p", (1, 2), "p"), FIRST, 0, 20)
    return Rollout(request, segments, turns=turns, id="whole")


def test_a_rollout_of_pieces_says_what_each_action_follows() -> None:
    rollout = of_pieces()
    assert rollout.context.rebuilt == ((3, SECOND), (8, THIRD))
    assert rollout.context.tokens == FIRST.tokens
    assert [(a, b, c.tokens) for a, b, c in rollout.context.pieces(9)] == [
        (0, 3, (1, 2)),
        (3, 8, (1, 2, 7)),
        (8, 9, (5,)),
    ]
    assert [(a, b) for a, b, _ in rollout.context.pieces(4)] == [(0, 3), (3, 4)]
    assert [(a, b) for a, b, _ in FIRST.pieces(0)] == [(0, 0)]
    assert rollout.before(2) == (1, 2, 11, 12)
    assert rollout.before(3) == (1, 2, 7)
    assert rollout.before(7) == (1, 2, 7, 14, 15, 16, 17)
    assert rollout.before(8) == (5,)


def test_a_rollout_goes_on_from_inside_a_later_piece() -> None:
    (child,) = of_pieces().branches(7, [3])
    assert child.context.rebuilt == ((3, SECOND),)
    assert context_of(child) == (1, 2, 7, 14, 15, 16, 17)
    assert [(turn.start, turn.context) for turn in child.turns] == [(0, None), (3, SECOND)]
    (child,) = of_pieces().branches(8, [3])
    assert context_of(child) == (5,)
    assert len(child.turns) == 3
    (child,) = of_pieces().branches(2, [3])
    assert child.context == FIRST
    assert context_of(child) == (1, 2, 11, 12)


def test_a_rollout_behind_another_context_takes_its_pieces_along() -> None:
    moved = of_pieces().in_context(Context((9,)))
    assert moved.before(3) == (9, 7)
    assert moved.before(8) == (5,)
    assert moved.tokens == of_pieces().tokens
    assert all(segment.logp is None for segment in moved.segments)


@pytest.mark.parametrize("context", [FIRST, of_pieces().context])
def test_a_context_comes_back_from_its_state(context: Context) -> None:
    assert Context.of_state(context.state()) == context


def test_states_of_earlier_versions_are_read() -> None:
    assert Context.of_state(torch.tensor([1, 2])) == FIRST
    state = stored(of_pieces())
    assert restored(state, of_pieces().prompt).context == of_pieces().context
    for turn in state["turns"]:
        del turn["context"]
    assert restored(state, of_pieces().prompt).context == FIRST
