"""Rollouts of several pieces: each turn in a context of its own counts as a rollout of a single turn does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cohort.policies import packing
from cohort.policies.causal_lm import CausalLM
from cohort.policies.sequences import Sequences
from cohort.types import Context, Prompt, Request, Rollout, Segment, Turn
from tests.helpers import tiny_policy

WANT = frozenset({"logp", "entropy"})
# (place of the turn, tokens of the context that it was given, length of the turn) of three rollouts.
SHAPES = ([(0, 9, 4), (4, 14, 3), (7, 6, 5)], [(0, 9, 6)], [(0, 5, 2), (2, 14, 1)])


@pytest.fixture(autouse=True, params=["shared", "padded", "whole"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(packing, "SHARE_SECONDS", -1e9)
    return str(request.param)


def rollouts(seed: int = 0) -> list[Rollout]:
    """Rollouts whose turns stand in contexts of their own; contexts of the same length are the same."""
    g = torch.Generator().manual_seed(seed)
    contexts = {n: Context(tuple(torch.randint(6, 90, (n,), generator=g).tolist())) for n in (5, 6, 9, 14)}
    out = []
    for shape in SHAPES:
        drawn = [tuple(torch.randint(6, 90, (length,), generator=g).tolist()) for _, _, length in shape]
        first = contexts[shape[0][1]]
        turns = tuple(Turn(at, at + length, context=contexts[n] if at else None) for at, n, length in shape)
        prompt = Prompt("p", "p", first.tokens, "p")
        out.append(Rollout(Request(prompt, first, 0, 20), tuple(map(Segment, drawn)), turns=turns))
    return out


def alone(given: list[Rollout]) -> tuple[list[Rollout], list[tuple[int, int, int]]]:
    """A rollout for each piece, and (row, first action, action behind the last) of it."""
    out, places = [], []
    for row, rollout in enumerate(given):
        for start, end, context in rollout.context.pieces(len(rollout.tokens)):
            request = replace(rollout.request, context=replace(context, rebuilt=()))
            out.append(Rollout(request, (Segment(tuple(rollout.tokens[start:end])),)))
            places.append((row, start, end))
    return out, places


def put_together(parts: Tensor, places: list[tuple[int, int, int]], width: int) -> Tensor:
    rows = torch.zeros(1 + max(row for row, _, _ in places), width, dtype=parts.dtype)
    for part, (row, start, end) in zip(parts, places, strict=True):
        rows = rows.index_put((torch.tensor(row), torch.arange(start, end)), part[: end - start])
    return rows


def gradient(policy: CausalLM, value: Tensor) -> list[Tensor]:
    weight = torch.linspace(-1.0, 1.0, value.numel(), dtype=value.dtype).view_as(value)
    return list(
        torch.autograd.grad(
            (weight * value).sum(), policy.trainable(), retain_graph=True, allow_unused=True, materialize_grads=True
        )
    )


@pytest.mark.parametrize("kind", ["qwen3", "gpt2", "mistral"])
def test_pieces_are_scored_as_rollouts_of_a_single_turn(kind: str, mode: str) -> None:
    policy = tiny_policy(kind, dtype=torch.float64)
    vars(policy)["forward_mode"] = mode
    given = rollouts()
    single, places = alone(given)
    together = policy.log_probs(policy.actions(given), width=13, temperature=0.8, want=WANT)
    apart = policy.log_probs(policy.actions(single), width=13, temperature=0.8, want=WANT)
    for name in WANT:
        expected = put_together(apart[name], places, 13)
        assert torch.allclose(together[name], expected, atol=1e-9)
        for a, b in zip(gradient(policy, together[name]), gradient(policy, expected), strict=True):
            assert torch.allclose(a, b, atol=1e-7)


@pytest.mark.parametrize("most", [12, 30, 60, 1000])
def test_micro_batches_of_pieces_give_the_whole(most: int, mode: str) -> None:
    policy = tiny_policy(dtype=torch.float64)
    vars(policy)["forward_mode"] = mode
    actions = policy.actions(rollouts() + rollouts(1))
    whole = policy.log_probs(actions, width=12)["logp"]
    parts = policy.micro_batches(actions, most)
    assert sorted(torch.cat(parts).tolist()) == list(range(6))
    for rows in parts:
        assert torch.allclose(policy.log_probs(actions.select(rows), width=12)["logp"], whole[rows], atol=1e-9)
        held = sum(actions.select(rows).lengths)
        assert len(rows) == 1 or held <= max(most, 3 * 9) or mode == "shared"


def test_actions_of_pieces_are_put_together_and_moved() -> None:
    policy = tiny_policy()
    one, other = policy.actions(rollouts()), policy.actions([rollouts(1)[1]])
    both = other + one
    assert len(both) == 4
    assert both.rebuilt == ((), *one.rebuilt)
    assert (other + other).rebuilt == ()
    # Of the first rollout the second piece goes on from the first one's context, the third shows something else.
    first, later = one.context[0], torch.cat([one.context[0], torch.tensor([7, 8])])
    grown = replace(one, rebuilt=(((4, later), (7, one.rebuilt[0][1][1])), (), ()))
    moved = grown.in_contexts([torch.tensor([3, 4]), *one.context[1:]])
    assert [p.context.tolist() for p in moved.pieces[:3]] == [[3, 4], [3, 4, 7, 8], one.rebuilt[0][1][1].tolist()]
    assert len(first) == 9
    assert isinstance(moved, Sequences)


@pytest.mark.parametrize("activations", ["keep", "checkpoint", "stream"])
def test_a_rollout_that_is_too_long_for_a_pass_takes_several(activations: str, mode: str) -> None:
    """Each piece is passed through the model by itself, forward and backward, and all is what one pass gives."""
    policy = tiny_policy(dtype=torch.float64)
    vars(policy)["forward_mode"] = mode
    policy.use_activations(activations if mode == "shared" else "keep")
    policy.roles.make("critic", kind="head")
    actions = policy.actions(rollouts()[:1])
    want = frozenset({"logp", "entropy", "values", "hidden"})
    whole = policy.log_probs(actions, width=13, temperature=0.8, want=want)
    before, weights = policy.forwards, [*policy.trainable(), *policy.roles.trained()]
    policy.micro_batches(actions, 20)
    parts = policy.log_probs(actions, width=13, temperature=0.8, want=want)
    assert policy.forwards == before + 3
    for name in want:
        assert torch.allclose(parts[name], whole[name], atol=1e-9)
        grads = []
        for value in (parts[name], whole[name]):
            weight = torch.linspace(-1.0, 1.0, value.numel(), dtype=value.dtype).view_as(value)
            how = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
            grads.append(torch.autograd.grad((weight * value).sum(), weights, **how))
        assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*grads, strict=True))
    with torch.no_grad():
        assert torch.allclose(policy.log_probs(actions, width=13, temperature=0.8)["logp"], whole["logp"], atol=1e-9)
