"""Syn-GRPO: settings that rollouts describe are served, tried and rewarded."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.axes import served
from cohort.signals.settings import described, diversity, key, known_or_mean
from cohort.types import StepInfo
from tests import micro
from tests.golden.guided import FakeSampler, guided, requests_of, text_of
from tests.helpers import random_batch, rollout_of


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_diversity_lies_between_0_and_1_and_is_4p_1_minus_p_for_right_and_wrong(accuracy):
    value = float(diversity(torch.tensor(accuracy, dtype=torch.float64)))
    assert -1e-9 <= value <= 1 + 1e-9
    binary = torch.tensor([float(a > 0.5) for a in accuracy], dtype=torch.float64)
    p = float(binary.mean())
    assert float(diversity(binary)) == pytest.approx(4 * p * (1 - p))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["request", "finish", "take"]), max_size=12), st.integers(1, 4))
def test_samples_leave_in_the_order_in_which_they_were_finished(operations, capacity):
    state, asked, out = served.empty(), 0, []
    for name in operations:
        if name == "request":
            state, asked = served.requested(state, [asked, asked + 1]), asked + 2
        elif name == "finish":
            state = served.finished(state, 1, capacity=capacity)
        else:
            found, state = served.taken(state, range(served.share_of(state, 4, 0.5)))
            out += found
        assert len(state["ready"]) <= capacity
    assert out == sorted(out)
    assert asked == len(state["pending"]) + len(state["ready"]) + state["dropped"] + len(out)


def test_settings_are_read_from_what_is_said():
    assert described("4 <description>a\n storm</description> <description> at  sea </description>") == "at sea"
    assert described("<description>open") == described("") == ""
    assert len(described(f"<description>{'x' * 5000}</description>")) == 600


def test_unknown_values_are_neutral():
    batch = random_batch(0, groups=(4, 3))
    values = torch.full((7,), torch.nan, dtype=torch.float64)
    first = (batch.groups.index == 0).nonzero()[:, 0]
    values[first[0]], values[first[1]] = 0.2, 0.6
    found = known_or_mean(values, batch)
    assert found[first].tolist() == pytest.approx([0.2, 0.6, *[0.4] * (len(first) - 2)])
    assert (found[batch.groups.index == 1] == 0).all()


def test_equal_values_do_not_change_the_advantages():
    batch = random_batch(1, groups=(4, 4))
    parts = batch.with_rollouts(reward_components=batch["accuracy"][:, None])
    info = StepInfo(reward_names=("exact",))
    bound = registry.method("syn-grpo").bind(info=info)
    known, unknown = (
        bound.prepare(parts.with_rollouts(diversity=torch.full((8,), v, dtype=torch.float64))) for v in (0.7, torch.nan)
    )
    assert torch.allclose(known.assigned.advantages, unknown.assigned.advantages)


def test_some_settings_of_a_group_are_tried_at_once():
    says = lambda r: "4" if "probe" in r.meta else f"4 <description>story {r.meta['place']}</description>"  # noqa: E731
    # In the first story half of the tries are right.
    sampler = FakeSampler(lambda r: float(r.meta.get("probe", 0) == 0 and r.seed % 2 == 0), says=says)
    groups = guided(registry.method("syn-grpo", probes=2, probe_size=4), requests_of(2, 3), sampler)
    assert [rollout.fields.get("tried") for rollout in groups[0]] == [1.0, 0.0, None]
    tries = [request for request in sampler.drawn if "probe" in request.meta]
    assert len(tries) == 2 * 2 * 4
    assert text_of(tries[0]).startswith("story 0\n\n<0>")
    assert "<description>" in text_of(sampler.drawn[0])
    assert "<description>" not in text_of(tries[0])
    sampler = FakeSampler(lambda r: 1.0, says=says)
    guided(registry.method("syn-grpo", probes=0), requests_of(2, 3), sampler)
    assert len(sampler.drawn) == 6


def test_described_settings_are_asked_in_the_next_step():
    method = registry.method("syn-grpo", share=0.5)
    states = method.init(size=6)
    batch = random_batch(0, groups=(2, 2)).with_rollouts(row=torch.tensor([4, 4, 5, 5]))
    texts = ("<description>a storm</description>", "none", "<description>a ship</description>", "nothing")
    (request,) = requests_of(1, 1)
    rollouts = [rollout_of(request, [1], text=text) for text in texts]
    states = method.bind(states).on_rollouts(batch, rollouts)
    rows, after, notes = method.bind(states).pick(count=4, rng=torch.Generator().manual_seed(0))
    assert rows[:2].tolist() == [4, 5]
    assert [note.get("setting") for note in notes] == ["a storm", "a ship", None, None]
    assert not {4, 5} & {*rows[2:].tolist()}
    # What was asked in its setting is counted as a visit.
    (name,) = (name for name, state in after.items() if "ready" in state)
    assert after[name]["ready"] == []
    visit = random_batch(0, groups=(2,)).with_rollouts(
        row=torch.tensor([4, 4]), accuracy=torch.tensor([1.0, 0.0], dtype=torch.float64)
    )
    tried = [rollout_of(replace(request, meta={"setting": "a storm"}), [1]) for _ in range(2)]
    known = method.bind(after).on_rollouts(visit, tried)[name]["known"]
    assert known == {key(4, "a storm"): 1.0}


def test_answers_are_learnt_behind_the_request_for_a_description(micro_root, tmp_path):
    """The same digit is right for every letter, since the micro task's policy never learnt to find a letter in a text."""
    (tmp_path / "three.py").write_text(
        "def three(completions, **columns):\n    return [float(text.strip() == '3') for text in completions]\n"
    )
    with micro.method_ready(micro_root, "syn-grpo", steps=15, reward=[f"{tmp_path / 'three.py'}:three"]) as parts:
        earned = [step.metrics["accuracy"] for step in micro.train(*parts)]
    assert sum(earned[-3:]) / 3 - sum(earned[:3]) / 3 > 0.3, earned
