"""Tree search over the lines of a completion."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.rollouts.search import Complete, Node, Search, State, back_up, search, uct

WANTED = "ba\nab\nba"


def lines(rng: random.Random, count: int) -> str:
    return "\n".join(rng.choice("abcd") + rng.choice("abcd") for _ in range(count))


def writer(seed: int, asked: list[State], width: int = 4) -> Complete:
    """Completions of three lines of two letters, at random."""
    rng = random.Random(seed)

    def complete(states: Sequence[State]) -> list[list[str]]:
        asked.extend(states)
        return [[text + lines(rng, 3 - text.count("\n")) for _ in range(width)] for _, text in states]

    return complete


def alike(states: Sequence[State]) -> list[float]:
    """Share of the places so far that are as they are wanted."""
    return [sum(a == b for a, b in zip(text, WANTED, strict=False)) / max(1, len(text)) for _, text in states]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 12))
def test_with_tests_the_root_knows_the_mean_of_all_rewards(seed: int, rounds: int) -> None:
    how = Search(rounds=rounds, width=4, children=3, exploration=0.2, guided=False)
    (tree,) = search(1, how, writer(seed, []), alike)
    seen = [alike([(0, text)])[0] for text in tree.found]
    assert min(seen) - 1e-9 <= tree.root.value <= max(seen) + 1e-9
    assert tree.root.visits >= rounds
    for node in tree.expanded():
        assert len(node.children) <= 3
        assert node.visits >= sum(child.visits for child in node.children)


def test_a_value_model_guides_to_better_answers_than_as_many_draws() -> None:
    how = Search(rounds=6, width=8, children=2, exploration=0.1)
    asked: list[State] = []
    trees = search(20, how, writer(1, asked, 8), alike)
    assert {tree for tree, _ in asked} == {*range(20)}
    for tree in trees:
        assert tree.found[tree.answer] == max(tree.found.values())
    rng = random.Random(2)
    best = [max(alike([(0, lines(rng, 3))])[0] for _ in range(6 * 8)) for _ in trees]
    found = [alike([(0, tree.answer)])[0] for tree in trees]
    assert statistics.mean(found) > statistics.mean(best) + 0.05


def test_a_child_is_visited_once_for_each_completion_that_begins_with_it() -> None:
    how = Search(rounds=1, width=3, children=2)
    texts = ["a\nx", "b\ny", "a\nz"]
    (tree,) = search(1, how, lambda states: [texts], lambda states: [0.25 if t == "a\n" else 0.75 for _, t in states])
    children = {child.text: (child.visits, child.value, child.final) for child in tree.root.children}
    assert children == {"b\n": (1, 0.75, False), "a\n": (2, 0.25, False)}
    assert tree.root.visits == 3
    assert tree.root.value == pytest.approx((2 * 0.25 + 0.75) / 3)


def test_an_end_counts_again_with_its_own_worth() -> None:
    how = Search(rounds=3, width=2, children=2, guided=False)
    (tree,) = search(1, how, lambda states: [["a", "a"] for _ in states], lambda states: [0.5 for _ in states])
    (end,) = tree.root.children
    assert (end.final, end.visits, end.value) == (True, 2, 0.5)
    assert (tree.root.visits, tree.root.value) == (4, 0.5)
    assert tree.answer == "a"


def test_unseen_children_come_first_and_ties_go_to_the_first() -> None:
    root = Node("", children=[Node("a"), Node("b")])
    back_up([root, root.children[0]], 4, 4.0)
    one, other = (uct(child, root, exploration=2.0, eps=0.1) for child in root.children)
    assert other > one
    assert other == pytest.approx(2.0 * math.sqrt((1 + math.log(4)) / 0.1))
