"""TON's identities (arXiv:2505.16854), and what is read of thoughts and answers in tags."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cohort import registry
from cohort.recipes.ton import find_skipped
from cohort.rewards.patterns import format_like
from cohort.signals.thoughts import first_in_tags, skips_thought, tag_format, tagged, with_dropout
from cohort.training.loop import one_step
from tests import micro
from tests.helpers import access_of
from tests.stepping import run_of
from tests.traits import batch_for, info_for

WORDS = st.text("ab \n", max_size=8)


@given(st.lists(WORDS, min_size=1, max_size=6), st.integers(0, 1000), st.floats(0, 1))
def test_dropout_empties_thoughts_and_nothing_else(thoughts: list[str], seed: int, p: float) -> None:
    uniform = torch.rand(len(thoughts), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    answers = [str(i) for i in range(len(thoughts))]
    texts, dropped = with_dropout(thoughts, answers, uniform, dropout=p)
    assert dropped == [u < p for u in uniform.tolist()]
    assert with_dropout(thoughts, answers, uniform, dropout=0.0)[0] == [*map(tagged, thoughts, answers)]
    assert all(map(skips_thought, with_dropout(thoughts, answers, uniform, dropout=1.0)[0]))
    for text, thought, out, answer in zip(texts, thoughts, dropped, answers, strict=True):
        assert re.search(tag_format(), text, re.DOTALL)
        assert first_in_tags(text) == answer
        assert text == tagged("\n\n" if out else thought, answer)


@given(WORDS, WORDS)
def test_the_format_does_not_look_at_the_thought(thought: str, other: str) -> None:
    form = format_like(tag_format())
    assert form([tagged(thought, "4"), tagged(other, "4"), tagged("", "4"), "4" + tagged("", "4")]) == [1, 1, 1, 0]


def test_the_share_of_skipped_thoughts_is_told_and_changes_nothing() -> None:
    batch = batch_for("ton", groups=(4,), empty=False)
    texts = [tagged("so", "4"), tagged(" \n", "4"), "4", tagged("", "5")]
    batch = find_skipped(batch, access_of(texts))
    assert batch["skipped"].tolist() == [0, 1, 0, 1]
    ready = registry.method("ton").bind(info=info_for(batch, "ton")).prepare(batch)
    assert ready.metrics == {"skip_ratio": 0.5}
    assert torch.equal(ready.shaped.rewards, batch.rewards)


@pytest.mark.parametrize("seed", range(3))
def test_a_step_is_grpos(micro_root: Path, seed: int) -> None:
    weights = []
    for method in ("grpo", "grpo+ton"):
        with micro.ready(micro_root, method, steps=1, seed=seed) as parts:
            result = one_step(run_of(*parts))
            weights.append([p.detach().clone() for p in parts[0].policy.trainable()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
    assert result.metrics["skip_ratio"] == 0
