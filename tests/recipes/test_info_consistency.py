"""Information-consistent GRPO: groups are the phrasings of a request."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort import registry
from cohort.methods import MethodError
from cohort.recipes.info_consistency import consistency, shared_out
from cohort.rewards.information import entropy_of_words
from cohort.training.loop import one_step
from cohort.types import Batch, Prompt
from cohort.types.access import Pool
from tests import micro
from tests.stepping import run_of

NAME = "info-consistency"
ENTROPIES = st.lists(st.floats(0, 8), min_size=1, max_size=8)


def group_of(entropies: list[float]) -> tuple[torch.Tensor, Batch]:
    count = len(entropies)
    return torch.tensor(entropies, dtype=torch.float64), Batch.of(torch.ones(count, 1), group=torch.zeros(count).long())


@given(ENTROPIES)
def test_both_parts_lie_between_0_and_1_in_any_unit(entropies: list[float]) -> None:
    told, batch = group_of(entropies)
    helpful, stable = consistency(told, batch)
    for part, other in zip((helpful, stable), consistency(told * 0.6931, batch), strict=True):
        assert bool(((part >= 0) & (part <= 1)).all())
        assert torch.allclose(part, other, atol=1e-9)
    if max(entropies) > 0:
        assert int(helpful.argmax()) == int(told.argmax())
        nearest = (told - told.mean()).abs()
        assert float(nearest[stable.argmax()]) == pytest.approx(float(nearest.min()), abs=1e-9)
    else:
        assert not helpful.any()
        assert not stable.any()


def test_words_are_runs_of_letters_and_digits() -> None:
    found = entropy_of_words(["a b", "A a", "it's", "", "é É x1 x1", [{"role": "assistant", "content": "a b"}]])
    assert found == pytest.approx([1, 0, 1, 0, 1, 1])


def picks(requests: list[int], count: int, times: int) -> list[list[int]]:
    rows = [{"request": f"q{request}"} for request in requests]
    method = registry.method(NAME)
    states = method.init(size=len(rows), rows=rows)
    out = []
    for step in range(times):
        picked, states, _ = method.bind(states).pick(count=count, rng=torch.Generator().manual_seed(step))
        out.append(picked.tolist())
    return out


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=14), st.integers(1, 9))
def test_requests_are_taken_whole_and_each_once_an_epoch(requests: list[int], count: int) -> None:
    if len({*requests}) == len(requests):
        with pytest.raises(MethodError, match="no request is phrased twice"):
            picks(requests, count, 1)
        return
    sizes, seen = Counter(requests), Counter[int]()
    for rows in picks(requests, count, 6):
        assert 0 < len(rows) <= count
        for request, many in Counter(requests[row] for row in rows).items():
            assert many % min(sizes[request], count) == 0
        seen.update(requests[row] for row in rows)
    epochs = [seen[request] / min(sizes[request], count) for request in sizes]
    assert max(epochs) - min(epochs) <= 1


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.integers(2, 9))
def test_answers_are_shared_out_over_the_phrasings(requests: list[int], group_size: int) -> None:
    prompts = [Prompt(str(i), "p", (1,), "p", {"request": request}) for i, request in enumerate(requests)]
    pool = Pool(prompts, *[lambda *_: None] * 3)  # type: ignore[arg-type]
    counts = shared_out(torch.arange(len(requests)), group_size=group_size, pool=pool, column="request")
    for request, many in Counter(requests).items():
        own = [int(n) for n, each in zip(counts, requests, strict=True) if each == request]
        assert sum(own) == max(group_size, many)
        assert max(own) - min(own) <= 1


def test_a_step_compares_answers_to_one_request(micro_root: Path) -> None:
    """Its rollouts are drawn each from its own prompt, with no earlier turn, and normalised with those of its request."""
    rows: list[dict[str, Any]] = [{**row, "request": i // 4} for i, row in enumerate(micro.ROWS)]
    how: dict[str, Any] = {"data": rows, "reward": ["exact"], "group_size": 8, "prompts_per_step": 8}
    with micro.ready(micro_root, f"{NAME}(information='exact', kl_beta=0.0)", **how) as (setup, optimizer, progress):
        progress.states = setup.method.init(size=8, steps=1, rows=rows)
        result = one_step(run_of(setup, optimizer, progress))
    requests = Counter(rollout.prompt.row["request"] for rollout in result.rollouts)
    assert requests == {0: 8, 1: 8}
    assert {len(rollout.request.history) for rollout in result.rollouts} == {0}
    assert set(Counter(rollout.prompt.id for rollout in result.rollouts).values()) == {2}
    solved = {
        by: {rollout.prompt.row[by] for rollout in result.rollouts if rollout.accuracy} for by in ("request", "prompt")
    }
    assert len(solved["prompt"]) < 8, "by prompt the share would be another one"
    assert result.metrics["group/pass@G"] == len(solved["request"]) / 2
    assert result.metrics["skipped_updates"] == 0
