"""Langton's ant on a torus: where it stands, where it will be, how often it repaints a cell. Source: arXiv:2505.13886."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

from cohort.data.generators import drawing
from cohort.data.generators.choices import choose
from cohort.data.generators.task import ANSWER, LEVELS, Task

if TYPE_CHECKING:
    from PIL.Image import Image

FACINGS = ("up", "right", "down", "left")
AHEAD = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1)}
SIZES: dict[str, int] = {"easy": 5, "medium": 9, "hard": 13}
# Task -> level of the question.
TASKS: dict[str, str] = {"position": "easy", "walk": "medium", "flips": "hard"}

RULES = """Langton's ant walks on a board whose edges are joined: who leaves it on one side enters it on the opposite side.
In each step the ant turns right if its cell is white and left if it is black, paints its cell in the other colour, and
moves one cell forward.
Cells are named (row, column). Rows are counted from 0 downwards, columns from 0 to the right."""


@dataclass(frozen=True)
class Ant:
    """A board with an ant.

    Attributes:
        grid: rows of cells, 0 white, 1 black.
        facing: of FACINGS.
    """

    grid: tuple[tuple[int, ...], ...]
    row: int
    column: int
    facing: str

    @property
    def place(self) -> str:
        return f"({self.row}, {self.column}) {self.facing}"


def step(ant: Ant) -> Ant:
    """One step: turn, repaint, move."""
    black = ant.grid[ant.row][ant.column]
    facing = FACINGS[(FACINGS.index(ant.facing) + (-1 if black else 1)) % 4]
    grid = [list(row) for row in ant.grid]
    grid[ant.row][ant.column] = 1 - black
    down, across = AHEAD[facing]
    height, width = len(grid), len(grid[0])
    return Ant(tuple(map(tuple, grid)), (ant.row + down) % height, (ant.column + across) % width, facing)


def walk(ant: Ant, steps: int) -> list[Ant]:
    """The ant at the start and after each step: `steps + 1` boards."""
    path = [ant]
    for _ in range(steps):
        path.append(step(path[-1]))
    return path


def flips(path: Sequence[Ant]) -> list[list[int]]:
    """How often each cell is repainted on a walk."""
    counts = [[0] * len(row) for row in path[0].grid]
    for ant in path[:-1]:
        counts[ant.row][ant.column] += 1
    return counts


def make(
    rng: random.Random,
    *,
    plot_level: Annotated[str | None, "size of the board: 5, 9 or 13 cells wide; all by default", LEVELS] = None,
    task: Annotated[
        str | None,
        "where the ant stands (easy), where it will be (medium), or how often it paints a cell (hard); all by default",
        tuple(TASKS),
    ] = None,
) -> Task:
    """Langton's ant: where it stands, where it will be, how often it repaints a cell"""
    level = plot_level or rng.choice(LEVELS)
    kind = task or rng.choice(tuple(TASKS))
    size = SIZES[level]
    share = rng.choice((0.0, 0.15, 0.3, 0.5))
    grid = tuple(tuple(int(rng.random() < share) for _ in range(size)) for _ in range(size))
    ant = Ant(grid, rng.randrange(size), rng.randrange(size), rng.choice(FACINGS))
    state = {"grid": [list(row) for row in grid], "row": ant.row, "column": ant.column, "facing": ant.facing}
    columns = {"game": "langtons-ant", "task": kind, "plot_level": level, "qa_level": TASKS[kind]}
    places = [f"({i}, {j}) {facing}" for i in range(size) for j in range(size) for facing in FACINGS]
    if kind == "position":
        asked, steps = "Where is the ant, and which way does it look?", 0
    elif kind == "walk":
        steps = rng.randint(5, 10)
        asked = f"Where is the ant after {steps} steps, and which way does it look?"
    else:
        steps = rng.randint(5, 12)
    path = walk(ant, steps)
    analysis = [
        f"Step {i + 1}: the ant is at {a.place} on {'black' if a.grid[a.row][a.column] else 'white'}, "
        f"turns {'left' if a.grid[a.row][a.column] else 'right'}, and is at {b.place} then."
        for i, (a, b) in enumerate(pairwise(path))
    ]
    if kind == "flips":
        counts = flips(path)
        # Most cells are never visited.
        if rng.random() < 0.8:
            met = path[rng.randrange(steps)]
            cell = (met.row, met.column)
        else:
            cell = (rng.randrange(size), rng.randrange(size))
        question = (
            f"How often does the cell ({cell[0]}, {cell[1]}) change its colour in the next {steps} steps? "
            f"Answer with a number. {ANSWER}"
        )
        answer = str(counts[cell[0]][cell[1]])
        state |= {"steps": steps, "cell": list(cell)}
    else:
        # Where the ant was before, and other ways that it might look, are easily taken for the answer.
        near = [a.place for a in path] + [f"({path[-1].row}, {path[-1].column}) {facing}" for facing in FACINGS]
        options = choose(rng, path[-1].place, [*rng.sample(near, min(4, len(near))), *rng.sample(places, 12)])
        question, answer = f"{asked}\n{options.text}", options.letter
        columns["options"] = list(options.shown)  # type: ignore[assignment]
        state |= {"steps": steps}
    analysis.append(f"The ant is at {path[-1].place}." if kind != "flips" else f"The cell changes {answer} times.")
    return Task(
        rules=RULES,
        scene=f"The board, {size} rows from above (. white, # black):\n{text(grid)}\n"
        f"The ant is at ({ant.row}, {ant.column}) and looks {ant.facing}.",
        seen="The picture shows the board. The ant is the red triangle, which points where the ant looks.",
        question=question,
        answer=answer,
        columns={**columns, "analysis": "\n".join(analysis), "state": state},
        pictures=(lambda: picture(ant),),
    )


def text(grid: Sequence[Sequence[int]]) -> str:
    """A line a row."""
    return "\n".join("".join(".#"[cell] for cell in row) for row in grid)


def picture(ant: Ant) -> Image:
    """The board with its ant."""
    image, draw = drawing.board([["#303030" if cell else "white" for cell in row] for row in ant.grid])
    drawing.arrow(draw, ant.row, ant.column, ant.facing, "#e02020")
    return image
