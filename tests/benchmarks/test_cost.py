"""The model of cost: its formulas by hand, and what must hold whatever the numbers are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.cost import Hardware, Messages, Work, best, draw, exchange, imbalance, spread

from benchmarks import cost

FAST = Hardware(inner_latency=0.0, outer_latency=0.0, host_latency=0.0)


def test_what_ranks_exchange_is_that_of_rings_within_and_between_machines() -> None:
    h = Hardware(inner=100.0, outer=10.0, inner_latency=0.5, outer_latency=2.0, node=4)
    assert exchange(1000.0, 1, h) == 0.0
    # Two of one machine: half of the bytes pass, in one message.
    assert exchange(1000.0, 2, h) == pytest.approx(500 / 100 + 0.5)
    assert exchange(1000.0, 4, h) == pytest.approx(750 / 100 + 3 * 0.5)
    # Three machines: each of the four ranks of one has a quarter to pass on.
    assert exchange(1000.0, 12, h) == pytest.approx(750 / 100 + 1.5 + (2 / 3) * 250 / 10 + 2 * 2.0)


def test_without_latency_an_exchange_is_bounded_and_grows_with_ranks() -> None:
    times = [exchange(1e9, ranks, FAST) for ranks in (1, 2, 8, 16, 64, 512)]
    assert times == sorted(times)
    assert times[-1] < 1e9 / FAST.inner + 1e9 / 8 / FAST.outer


def test_holders_double_where_something_is_spread() -> None:
    assert [spread(8.0, to, 2.0, 1.0) for to in (0, 1, 2, 3, 4, 7, 8)] == [0.0, 5.0, 10.0, 10.0, 15.0, 15.0, 20.0]


def test_drawing_takes_the_longer_of_reading_and_working() -> None:
    # One rollout: every step reads the weights and what was said, half of it in the mean.
    one = Work(rollouts=1, group=1, prompt=0, cache=2.0, longest=1000, parameters=1e9, bytes=2.0)
    h = Hardware(memory=1e12, read=0.5, flops=1e15, drawn=0.5)
    assert draw(one, 1, h) == pytest.approx(1000 * (2e9 + 500 * 2.0) / 0.5e12, rel=1e-6)
    # So many that arithmetic is the longer: half of them go on in the mean.
    many = replace(one, rollouts=10**6, cache=0.0)
    assert draw(many, 1, h) == pytest.approx(1000 * 2e9 * 0.5e6 / 0.5e15, rel=1e-2)
    # However many samplers there are, the longest rollout is drawn token by token.
    assert draw(Work(), 10**6, h) >= Work().longest * Work().parameters * 2 / 0.5e12


def test_tokens_are_dealt_more_evenly_the_more_sequences_there_are() -> None:
    assert imbalance(Work(), 1) == 1.0
    uneven = [imbalance(replace(Work(), rollouts=count), 64) for count in (64, 256, 4096)]
    assert uneven == sorted(uneven, reverse=True)
    # As many ranks as sequences: the longest over the mean, 2 of uniform lengths.
    assert uneven[0] == pytest.approx(2.0, rel=0.1)
    assert uneven[-1] < 1.01


@pytest.mark.parametrize("gpus", [2, 8, 16, 64, 512])
def test_the_best_split_uses_all_gpus_and_none_is_better(gpus: int) -> None:
    work, messages, h = Work(), Messages(), Hardware()
    for ahead in (True, False):
        found = best(work, gpus, messages, h, ahead=ahead)
        assert found.samplers + found.trainers == gpus
        part = 1 if gpus <= h.node else h.node
        assert found.trainers % part == 0
        others = [cost.cost(work, gpus - t, t, messages, h) for t in range(part, gpus, part)]
        assert min(each.ahead if ahead else each.together for each in others) == (
            found.ahead if ahead else found.together
        )
        assert found.ahead <= found.together
        assert found.ahead >= max(found.sample, found.train)


def test_messages_cost_what_they_hold() -> None:
    base = cost.cost(Work(), 8, 16, Messages(), FAST)
    twice = cost.cost(Work(), 8, 16, Messages(*(2 * value for value in vars(Messages()).values())), FAST)
    for part in ("gradient", "commands", "transfer"):
        assert getattr(twice, part) == pytest.approx(2 * getattr(base, part))
    assert (twice.sample, twice.train) == (base.sample, base.train)
    # By hand: passes of the tokens and of a prompt a group, on 16 ranks.
    work, h = Work(), FAST
    passes = 8 * work.parameters * (1024 * 4096 + 64 * 512) / (16 * h.flops * 0.4)
    assert base.train == pytest.approx(passes * imbalance(work, 16))
    assert base.transfer == pytest.approx(2.0 * work.parameters / h.pull)


def test_the_table_has_a_row_for_every_size_and_begins_with_all_of_the_efficiency() -> None:
    works = [("stays", Work()), ("grows", Work())]
    rows = cost.table(works, (8, 64, 512), Messages(), Hardware())
    assert [row["GPUs"] for row in rows] == ["8", "64", "512"] * 2
    assert rows[0]["efficiency"] == rows[3]["efficiency"] == "100 %"
    share = [float(row["efficiency"].rstrip(" %")) for row in rows]
    # Of a step that stays what it is, ever more is waiting for the longest rollout.
    assert share[0] > share[1] > share[2]
    # Of one that grows, what the driver alone does.
    assert share[3] >= share[4] >= share[5]
    assert share[4] > share[1]
    assert share[5] > share[2]
    page = cost.markdown(rows).splitlines()
    assert len(page) == 8
    assert {line.count("|") for line in page} == {12}


def test_the_page_has_the_table_that_the_model_gives_with_the_message_sizes_it_names() -> None:
    page = (Path(__file__).parent.parent.parent / "docs/scale.md").read_text()
    rows = cost.table([("stays", Work()), ("grows", Work())], (8, 64, 512), Messages(), Hardware())
    assert cost.markdown(rows) in page
