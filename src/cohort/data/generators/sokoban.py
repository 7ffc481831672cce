"""Sokoban: moves, boxes, distances and shortest solutions. Source: arXiv:2505.13886."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cohort.data.generators import drawing
from cohort.data.generators.choices import choose, numbers_near
from cohort.data.generators.task import LEVELS, Task

if TYPE_CHECKING:
    from PIL.Image import Image

FLOOR, WALL, BOX, TARGET, BOX_ON_TARGET, PLAYER, PLAYER_ON_TARGET = range(7)
MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
SIGNS = ".#bt*px"
# Level -> width of the board with its walls, boxes.
BOARDS: dict[str, tuple[int, int]] = {"easy": (6, 1), "medium": (7, 1), "hard": (8, 2)}
TASKS: dict[str, str] = {
    "player": "easy",
    "distance": "easy",
    "moved-player": "medium",
    "moved-box": "medium",
    "walk": "hard",
    "solution": "hard",
}
Cell = tuple[int, int]

RULES = """In Sokoban a player pushes boxes onto targets. A move goes one cell up, down, left or right.
Who moves into a box pushes it one cell on. A move into a wall does nothing, and neither does one into a box behind which is
a wall, another box or the end of the board.
Cells are named (row, column). Rows are counted from 0 downwards, columns from 0 to the right."""


@dataclass(frozen=True)
class Board:
    """What stands where; walls and targets do not move."""

    height: int
    width: int
    walls: frozenset[Cell]
    targets: frozenset[Cell]
    boxes: frozenset[Cell]
    player: Cell

    @classmethod
    def of(cls, grid: Sequence[Sequence[int]]) -> Board:
        """The board of a grid of cell numbers, from FLOOR to PLAYER_ON_TARGET.

        Raises:
            ValueError: it has not exactly one player.
        """

        def where(*kinds: int) -> frozenset[Cell]:
            return frozenset((i, j) for i, row in enumerate(grid) for j, cell in enumerate(row) if cell in kinds)

        players = where(PLAYER, PLAYER_ON_TARGET)
        if len(players) != 1:
            raise ValueError(f"a board has one player, not {len(players)}")
        targets, boxes = where(TARGET, BOX_ON_TARGET, PLAYER_ON_TARGET), where(BOX, BOX_ON_TARGET)
        return cls(len(grid), len(grid[0]), where(WALL), targets, boxes, next(iter(players)))

    def grid(self) -> list[list[int]]:
        """Cell numbers."""
        rows = [[FLOOR] * self.width for _ in range(self.height)]
        for i, j in self.walls:
            rows[i][j] = WALL
        for i, j in self.targets:
            rows[i][j] = TARGET
        for i, j in self.boxes:
            rows[i][j] = BOX_ON_TARGET if (i, j) in self.targets else BOX
        i, j = self.player
        rows[i][j] = PLAYER_ON_TARGET if self.player in self.targets else PLAYER
        return rows

    def solid(self, cell: Cell) -> bool:
        """A wall, or outside."""
        return cell in self.walls or not (0 <= cell[0] < self.height and 0 <= cell[1] < self.width)

    def move(self, direction: str) -> Board | None:
        """The board after a move; None if the move does nothing."""
        to = _next(self.player, direction)
        if self.solid(to):
            return None
        boxes = self.boxes
        if to in boxes:
            beyond = _next(to, direction)
            if self.solid(beyond) or beyond in boxes:
                return None
            boxes = (boxes - {to}) | {beyond}
        return Board(self.height, self.width, self.walls, self.targets, boxes, to)


def _next(cell: Cell, direction: str) -> Cell:
    down, across = MOVES[direction]
    return cell[0] + down, cell[1] + across


def play(board: Board, moves: Iterable[str]) -> tuple[Board, list[bool]]:
    """The board after some moves, and which of them did something."""
    legal = []
    for direction in moves:
        after = board.move(direction)
        legal.append(after is not None)
        board = after or board
    return board, legal


def solve(board: Board) -> tuple[int, int] | None:
    """Fewest moves that bring all boxes onto targets, and the fewest pushes among such solutions; None if there is none."""
    ways = [MOVES[name] for name in MOVES]
    solid = {(i, j) for i in range(-1, board.height + 1) for j in range(-1, board.width + 1) if board.solid((i, j))}
    # Out of a corner that is no target nothing brings a box.
    lost = {
        (i, j)
        for i in range(board.height)
        for j in range(board.width)
        if (i, j) not in board.targets
        and ((i - 1, j) in solid or (i + 1, j) in solid)
        and ((i, j - 1) in solid or (i, j + 1) in solid)
    }
    # Moves first, then pushes: the first time that a state is taken out, both are as few as can be.
    queue: list[tuple[int, int, Cell, tuple[Cell, ...]]] = [(0, 0, board.player, tuple(sorted(board.boxes)))]
    done: set[tuple[Cell, tuple[Cell, ...]]] = set()
    while queue:
        moves, pushes, player, boxes = heapq.heappop(queue)
        if (player, boxes) in done:
            continue
        done.add((player, boxes))
        if board.targets.issuperset(boxes):
            return moves, pushes
        for down, across in ways:
            to = (player[0] + down, player[1] + across)
            if to in solid:
                continue
            if to not in boxes:
                after, pushed = boxes, 0
            else:
                beyond = (to[0] + down, to[1] + across)
                if beyond in solid or beyond in lost or beyond in boxes:
                    continue
                after, pushed = tuple(sorted(beyond if box == to else box for box in boxes)), 1
            if (to, after) not in done:
                heapq.heappush(queue, (moves + 1, pushes + pushed, to, after))
    return None


def walk(board: Board, goal: Cell) -> int | None:
    """Fewest moves of the player to a cell if no box may be pushed; None if there is no way."""
    left, seen = deque([(board.player, 0)]), {board.player}
    while left:
        cell, moves = left.popleft()
        if cell == goal:
            return moves
        for direction in MOVES:
            to = _next(cell, direction)
            if not board.solid(to) and to not in board.boxes and to not in seen:
                seen.add(to)
                left.append((to, moves + 1))
    return None


def make(
    rng: random.Random,
    *,
    plot_level: Annotated[
        str | None, "board of 6, 7 or 8 cells, the last with two boxes; all by default", LEVELS
    ] = None,
    task: Annotated[
        str | None,
        "the player's cell, a box's distance to a target (easy), where the player or a box is after moves (medium), the "
        "player's shortest walk, the fewest moves that solve the board (hard); all by default",
        tuple(TASKS),
    ] = None,
) -> Task:
    """Sokoban: cells, distances, what moves do, shortest walks and solutions"""
    level = plot_level or rng.choice(LEVELS)
    kind = task or rng.choice(tuple(TASKS))
    board = _board(rng, *BOARDS[level])
    best = solve(board) if kind == "solution" else None
    while (kind == "solution" and not best) or (kind == "walk" and not _free(board)):
        board = _board(rng, *BOARDS[level])
        best = solve(board) if kind == "solution" else None
    cells = [(i, j) for i in range(board.height) for j in range(board.width) if not board.solid((i, j))]
    names = [_name(cell) for cell in cells]
    state: dict[str, object] = {"grid": board.grid()}
    if kind == "player":
        asked, right, others = "Where is the player?", _name(board.player), names
        analysis = f"The player is at {right}."
    elif kind == "distance":
        box, target = rng.choice(sorted(board.boxes)), rng.choice(sorted(board.targets))
        far = abs(box[0] - target[0]) + abs(box[1] - target[1])
        at = (f" at {_name(box)}", f" at {_name(target)}") if len(board.boxes) > 1 else ("", "")
        asked = f"What is the Manhattan distance between the box{at[0]} and the target{at[1]}?"
        right, others = str(far), numbers_near(far)
        analysis = f"The box is at {_name(box)}, the target at {_name(target)}: {far} rows and columns apart in sum."
        state |= {"box": list(box), "target": list(target)}
    elif kind in ("moved-player", "moved-box"):
        moves, box, after = _moves(rng, board, pushing=kind == "moved-box")
        listed = ", ".join(moves)
        if kind == "moved-player":
            asked, right = f"Where is the player after the moves {listed}?", _name(after.player)
            near = [board.player, *_around(after.player)]
        else:
            # The box keeps its name wherever it is pushed.
            which = f"the box that is at {_name(box)} now" if len(board.boxes) > 1 else "the box"
            end = _follow(board, moves, box)
            asked, right = f"Where is {which} after the moves {listed}?", _name(end)
            near = [*board.boxes, *_around(end)]
            state["box"] = list(box)
        others = [_name(cell) for cell in near if not board.solid(cell)] + rng.sample(names, min(6, len(names)))
        analysis = f"In turn, the player is at {', '.join(_name(cell) for cell in _path(board, moves))}."
        state |= {"moves": moves}
    elif kind == "walk":
        reached = {cell: many for cell in cells if (many := walk(board, cell)) is not None and many > 0}
        goal = rng.choice(sorted(reached))
        asked = f"How many moves does the player need at least to get to {_name(goal)} without pushing a box?"
        right, others = str(reached[goal]), numbers_near(reached[goal], least=1)
        analysis = f"The shortest way from {_name(board.player)} to {_name(goal)} has {right} moves."
        state["goal"] = list(goal)
    else:
        assert best is not None
        asked = (
            "How many moves does it take at least to bring "
            + ("every box" if len(board.boxes) > 1 else "the box")
            + " onto a target? Moves that push a box and moves that do not count alike."
        )
        right, others = str(best[0]), numbers_near(best[0], least=1)
        analysis = f"The shortest solution has {best[0]} moves, {best[1]} of them pushes."
    options = choose(rng, right, others)
    return Task(
        rules=RULES,
        scene=f"The board, {board.height} rows from above ({SIGNS[FLOOR]} floor, {SIGNS[WALL]} wall, {SIGNS[BOX]} box, "
        f"{SIGNS[TARGET]} target, {SIGNS[BOX_ON_TARGET]} box on a target, {SIGNS[PLAYER]} player, "
        f"{SIGNS[PLAYER_ON_TARGET]} player on a target):\n{text(board)}",
        seen="The picture shows the board: walls are dark, boxes brown squares, targets red rings, the player a blue disc.",
        question=f"{asked}\n{options.text}",
        answer=options.letter,
        columns={
            "game": "sokoban",
            "task": kind,
            "plot_level": level,
            "qa_level": TASKS[kind],
            "options": list(options.shown),
            "analysis": analysis,
            "state": state,
        },
        pictures=(lambda: picture(board),),
    )


def _board(rng: random.Random, size: int, boxes: int) -> Board:
    """A board that is not solved yet."""
    edge = {(i, j) for i in range(size) for j in range(size) if i in (0, size - 1) or j in (0, size - 1)}
    inside = [(i, j) for i in range(size) for j in range(size) if (i, j) not in edge]
    while True:
        walls = {cell for cell in inside if rng.random() < 0.12}
        free = [cell for cell in inside if cell not in walls]
        if len(free) < 2 * boxes + 1:
            continue
        drawn = rng.sample(free, boxes + 1)
        targets = rng.sample(free, boxes)
        board = Board(size, size, frozenset(edge | walls), frozenset(targets), frozenset(drawn[1:]), drawn[0])
        if not board.boxes <= board.targets:
            return board


def _free(board: Board) -> bool:
    """The player can move without pushing a box."""
    return any(not board.solid(to) and to not in board.boxes for to in _around(board.player))


def _moves(rng: random.Random, board: Board, *, pushing: bool) -> tuple[list[str], Cell, Board]:
    """Some moves, most of which do something, a box, and the board after them; if `pushing`, the box is mostly pushed."""
    best: tuple[int, list[str], Cell, Board] | None = None
    for _ in range(8 if pushing else 1):
        moves, at = [], board
        for _ in range(rng.randint(4, 9)):
            possible = [direction for direction in MOVES if at.move(direction) is not None]
            moves.append(rng.choice(possible if possible and rng.random() < 0.85 else tuple(MOVES)))
            at = at.move(moves[-1]) or at
        box = rng.choice(sorted(board.boxes))
        end = _follow(board, moves, box)
        moved = abs(end[0] - box[0]) + abs(end[1] - box[1])
        if best is None or moved > best[0]:
            best = (moved, moves, box, at)
    assert best is not None
    return best[1:]


def _path(board: Board, moves: Iterable[str]) -> list[Cell]:
    """Where the player is after each move."""
    path = []
    for direction in moves:
        board = board.move(direction) or board
        path.append(board.player)
    return path


def _follow(board: Board, moves: Iterable[str], box: Cell) -> Cell:
    """Where a box is after some moves."""
    for direction in moves:
        after = board.move(direction) or board
        if box not in after.boxes:
            box = _next(box, direction)
        board = after
    return box


def _around(cell: Cell) -> list[Cell]:
    return [_next(cell, direction) for direction in MOVES]


def _name(cell: Collection[int]) -> str:
    row, column = cell
    return f"({row}, {column})"


def text(board: Board) -> str:
    """A line a row."""
    return "\n".join("".join(SIGNS[cell] for cell in row) for row in board.grid())


def picture(board: Board) -> Image:
    """The board."""
    grid = board.grid()
    image, draw = drawing.board([["#404048" if cell == WALL else "#f4efe6" for cell in row] for row in grid])
    for i, j in sorted(board.boxes):
        draw.rectangle(drawing.cell(i, j, 6), fill="#b07a3c", outline="#5a3a14", width=2)
    for i, j in sorted(board.targets):
        draw.ellipse(drawing.cell(i, j, 11), outline="#d02020", width=3)
    draw.ellipse(drawing.cell(*board.player, 12), fill="#2050d0")
    return image
