"""Games: every answer is right, tasks and levels are what they are called, and the rules hold."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohort.data.generators import langtons_ant, life, sokoban
from cohort.data.generators.choices import arrange, choose
from cohort.data.generators.table import GENERATORS
from tests.data.generators import verify_games

GAMES = ("langtons-ant", "life", "sokoban")


def rows_of(name, many, seed=0, **options):
    return [task.row("text") for task in GENERATORS[name].tasks(many, seed, options)]


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("many", [60, pytest.param(1000, marks=pytest.mark.exhaustive)])
def test_no_answer_is_wrong(name, many):
    rows = rows_of(name, many, seed=many)
    assert [why for row in rows if (why := verify_games.wrong(row))] == []
    assert len({row["prompt"] for row in rows}) == many
    tasks = {setting.name: setting.choices for setting in GENERATORS[name].settings}["task"]
    assert {row["task"] for row in rows} == {*tasks}
    assert {row["plot_level"] for row in rows} == {row["qa_level"] for row in rows} == {"easy", "medium", "hard"}


@pytest.mark.parametrize("name", GAMES)
def test_right_options_stand_at_every_place(name):
    letters = Counter(row["answer"] for row in rows_of(name, 200) if "options" in row and len(row["options"]) == 8)
    assert set(letters) == set("ABCDEFGH")
    assert max(letters.values()) < 0.3 * letters.total()


@pytest.mark.parametrize("name", GAMES)
def test_options_of_a_generator_are_kept_to(name):
    settings = {setting.name: setting.choices for setting in GENERATORS[name].settings}
    for task in settings["task"]:
        (row,) = rows_of(name, 1, task=task, plot_level="hard")
        assert (row["task"], row["plot_level"]) == (task, "hard")


def test_the_verifier_finds_wrong_answers():
    for name in GAMES:
        for row in rows_of(name, 20):
            other = "B" if row["answer"] == "A" else "A" if "options" in row else str(int(row["answer"]) + 1)
            assert verify_games.wrong({**row, "answer": other})


def test_the_ant_changes_one_cell_a_step():
    rng = random.Random(0)
    grid = tuple(tuple(rng.randrange(2) for _ in range(7)) for _ in range(7))
    path = langtons_ant.walk(langtons_ant.Ant(grid, 3, 3, "up"), 50)
    for a, b in pairwise(path):
        assert sum(x != y for r, s in zip(a.grid, b.grid, strict=True) for x, y in zip(r, s, strict=True)) == 1
    assert sum(map(sum, langtons_ant.flips(path))) == 50


def test_a_part_that_never_rests_has_no_answer():
    blinker = ((0, 0, 0, 0, 0), (0, 0, 0, 0, 0), (0, 1, 1, 1, 0), (0, 0, 0, 0, 0), (0, 0, 0, 0, 0))
    assert life.rest(blinker, (1, 1, 4, 4)) is None
    assert life.rest(blinker, (0, 0, 1, 5)) == 0


@given(st.integers(0, 10**6))
def test_moves_keep_boxes_targets_and_the_player(seed):
    rng = random.Random(seed)
    board = sokoban._board(rng, 6, 2)
    moves = [rng.choice(list(sokoban.MOVES)) for _ in range(12)]
    after, legal = sokoban.play(board, moves)
    assert (len(after.boxes), after.targets, after.walls) == (len(board.boxes), board.targets, board.walls)
    assert after.player not in after.boxes | after.walls
    assert sokoban.Board.of(after.grid()) == after
    assert len(legal) == 12


def test_a_solution_has_at_least_as_many_moves_as_pushes_and_pushes_as_the_distance():
    rng, solved = random.Random(1), 0
    while solved < 20:
        board = sokoban._board(rng, 6, 1)
        best = sokoban.solve(board)
        if best is None:
            continue
        (box,), (target,) = board.boxes, board.targets
        assert best[0] >= best[1] >= abs(box[0] - target[0]) + abs(box[1] - target[1])
        solved += 1


def test_a_board_without_one_player_is_refused():
    with pytest.raises(ValueError, match="one player, not 2"):
        sokoban.Board.of([[5, 5]])


def test_options_differ():
    with pytest.raises(ValueError, match="options must differ"):
        arrange("a", ["b", "b"], [0, 1, 2])
    few = choose(random.Random(0), "1", ["1", "2", "3"])
    assert sorted(few.shown) == ["1", "2", "3"]
    assert few.shown[few.place] == "1"
    assert few.number == few.place + 1
