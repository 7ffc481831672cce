"""Conway's Game of Life on a torus: live cells now and later, changes of a cell, when a part of it comes to rest.

Source: arXiv:2505.13886.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from cohort.data.generators import drawing
from cohort.data.generators.choices import choose, numbers_near
from cohort.data.generators.task import ANSWER, LEVELS, Task

if TYPE_CHECKING:
    from PIL.Image import Image

Grid = tuple[tuple[int, ...], ...]
SIZES: dict[str, int] = {"easy": 3, "medium": 4, "hard": 5}
TASKS: dict[str, str] = {"count": "easy", "next": "medium", "changes": "hard", "rest": "hard"}

RULES = """Conway's Game of Life is played on a board whose edges are joined: the cells on one side are neighbours of those
on the opposite side. Each cell has eight neighbours. In a step, all cells at once, a dead cell with exactly three live
neighbours comes to life, and a live cell lives on with two or three live neighbours and dies otherwise.
Cells are named (row, column). Rows are counted from 0 downwards, columns from 0 to the right."""


def step(grid: Grid) -> Grid:
    """The board after a step."""
    height, width = len(grid), len(grid[0])

    def next_of(i: int, j: int) -> int:
        around = sum(
            grid[(i + down) % height][(j + across) % width]
            for down in (-1, 0, 1)
            for across in (-1, 0, 1)
            if (down, across) != (0, 0)
        )
        return int(around == 3 or (around == 2 and grid[i][j] == 1))

    return tuple(tuple(next_of(i, j) for j in range(width)) for i in range(height))


def run(grid: Grid, steps: int) -> list[Grid]:
    """The board at the start and after each step: `steps + 1` boards."""
    boards = [grid]
    for _ in range(steps):
        boards.append(step(boards[-1]))
    return boards


def alive(grid: Grid) -> int:
    return sum(map(sum, grid))


def cycle(grid: Grid) -> tuple[list[Grid], int]:
    """The boards until one comes again, and the place of that one: from there on they repeat for ever."""
    boards, place = [grid], {grid: 0}
    while True:
        grid = step(grid)
        if grid in place:
            return boards, place[grid]
        place[grid] = len(boards)
        boards.append(grid)


def rest(grid: Grid, region: tuple[int, int, int, int]) -> int | None:
    """Steps after which the cells of a region (top, left, bottom, right; the last two not in it) change no more.

    None if they go on changing.
    """
    boards, again = cycle(grid)
    top, left, bottom, right = region
    parts = [tuple(row[left:right] for row in board[top:bottom]) for board in boards]
    if len(set(parts[again:])) > 1:
        return None
    at = len(parts) - 1
    while at > 0 and parts[at - 1] == parts[at]:
        at -= 1
    return at


def make(
    rng: random.Random,
    *,
    plot_level: Annotated[str | None, "size of the board: 3, 4 or 5 cells wide; all by default", LEVELS] = None,
    task: Annotated[
        str | None,
        "live cells now (easy) or after a step (medium), how often a cell changes, or when a part of the board comes to rest "
        "(hard); all by default",
        tuple(TASKS),
    ] = None,
) -> Task:
    """Conway's Game of Life: live cells now and later, changes of a cell, when a part of it comes to rest"""
    level = plot_level or rng.choice(LEVELS)
    kind = task or rng.choice(tuple(TASKS))
    size = SIZES[level]
    grid = _board(rng, size)
    state: dict[str, object] = {}
    columns: dict[str, object] = {"game": "life", "task": kind, "plot_level": level, "qa_level": TASKS[kind]}
    if kind == "count":
        asked, right = "How many cells are alive?", alive(grid)
        analysis = "; ".join(f"row {i} has {sum(row)} live cells" for i, row in enumerate(grid))
    elif kind == "next":
        asked, right = "How many cells are alive after one step?", alive(step(grid))
        analysis = f"After the step the board is\n{text(step(grid))}"
    elif kind == "changes":
        steps = rng.randint(3, 6)
        i, j = rng.randrange(size), rng.randrange(size)
        boards = run(grid, steps)
        right = sum(a[i][j] != b[i][j] for a, b in pairwise(boards))
        asked = f"How often does the cell ({i}, {j}) change, from dead to alive or back, in the next {steps} steps?"
        analysis = "The cell is " + ", ".join("alive" if board[i][j] else "dead" for board in boards) + " in turn."
        state |= {"steps": steps, "cell": [i, j]}
    else:
        found = None
        while found is None:
            grid = _board(rng, size)
            high, wide = rng.randint(2, size), rng.randint(2, size)
            top, left = rng.randint(0, size - high), rng.randint(0, size - wide)
            region = (top, left, top + high, left + wide)
            found = rest(grid, region)
        right = found
        asked = (
            f"Look at the part of the board with rows {top} to {top + high - 1} and columns {left} to {left + wide - 1}. "
            "After how many steps do its cells change no more? (0 if they never change.)"
        )
        shown = run(grid, right + 1)
        analysis = "\n".join(f"After {k} steps:\n{text(board)}" for k, board in enumerate(shown))
        state |= {"region": list(region)}
    answer, question = str(right), f"{asked} Answer with a number. {ANSWER}"
    if TASKS[kind] != "hard":
        options = choose(rng, answer, numbers_near(right))
        answer, question = options.letter, f"{asked}\n{options.text}"
        columns["options"] = list(options.shown)
    return Task(
        rules=RULES,
        scene=f"The board, {size} rows from above (. dead, # alive):\n{text(grid)}",
        seen="The picture shows the board: live cells are black, dead ones white.",
        question=question,
        answer=answer,
        columns={
            **columns,
            "analysis": f"{analysis}\nThe number is {right}.",
            "state": {"grid": [list(row) for row in grid], **state},
        },
        pictures=(lambda: picture(grid),),
    )


def _board(rng: random.Random, size: int) -> Grid:
    share = rng.choice((0.2, 0.35, 0.5))
    return tuple(tuple(int(rng.random() < share) for _ in range(size)) for _ in range(size))


def text(grid: Sequence[Sequence[int]]) -> str:
    """A line a row."""
    return "\n".join("".join(".#"[cell] for cell in row) for row in grid)


def picture(grid: Grid) -> Image:
    """The board."""
    return drawing.board([["#202020" if cell else "white" for cell in row] for row in grid])[0]
