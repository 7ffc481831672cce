"""The answers of the games' rows once more, from the board as the prompt shows it, by other means than the generators'."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

TURN = {"up": -1 + 0j, "right": 1j, "down": 1 + 0j, "left": -1j}  # row + column i
NAMES = {value: name for name, value in TURN.items()}


def said(row):
    """What the answer stands for: the text of the right option, or the answer itself."""
    options = row.get("options")
    if options is None:
        return row["answer"]
    assert len(set(options)) == len(options) >= 2
    shown = [f"{chr(65 + i)}: {option}" for i, option in enumerate(options)]
    assert "\n".join(shown) in row["prompt"]
    assert len(row["answer"]) == 1
    return options[ord(row["answer"]) - 65]


def drawn(prompt):
    """Lines of the board."""
    rows = int(re.search(r"The board, (\d+) rows", prompt)[1])
    lines = prompt[prompt.index("The board, ") :].split("\n")[1 : rows + 1]
    assert len({len(line) for line in lines}) == 1
    return lines


def langtons_ant(row):
    prompt, lines = row["prompt"], drawn(row["prompt"])
    size = len(lines)
    black = {complex(i, j) for i, line in enumerate(lines) for j, sign in enumerate(line) if sign == "#"}
    state = row["state"]
    assert black == {complex(i, j) for i, cells in enumerate(state["grid"]) for j, cell in enumerate(cells) if cell}
    i, j, facing = re.search(r"The ant is at \((\d+), (\d+)\) and looks (\w+)", prompt).groups()
    assert (int(i), int(j), facing) == (state["row"], state["column"], state["facing"])
    place, ahead = complex(int(i), int(j)), TURN[facing]
    steps = re.search(r"(\d+) steps", prompt)
    visits = []
    for _ in range(int(steps[1]) if steps else 0):
        visits.append(place)
        # Rows grow downwards: in row + column i, right is a turn by -i.
        ahead *= 1j if place in black else -1j
        black ^= {place}
        place = complex((place + ahead).real % size, (place + ahead).imag % size)
    if row["task"] == "flips":
        i, j = re.search(r"does the cell \((\d+), (\d+)\)", prompt).groups()
        return str(visits.count(complex(int(i), int(j))))
    return f"({int(place.real)}, {int(place.imag)}) {NAMES[ahead]}"


def life(row):
    prompt = row["prompt"]
    board = np.array([[sign == "#" for sign in line] for line in drawn(prompt)], dtype=int)
    assert board.tolist() == row["state"]["grid"]

    def after(cells):
        around = sum(np.roll(cells, (a, b), (0, 1)) for a in (-1, 0, 1) for b in (-1, 0, 1)) - cells
        return ((around == 3) | ((around == 2) & (cells == 1))).astype(int)

    if row["task"] == "count":
        return str(board.sum())
    if row["task"] == "next":
        return str(after(board).sum())
    if row["task"] == "changes":
        i, j, steps = map(int, re.search(r"cell \((\d+), (\d+)\) change.* (\d+) steps", prompt).groups())
        values = [board[i, j]]
        for _ in range(steps):
            board = after(board)
            values.append(board[i, j])
        return str(int(np.abs(np.diff(values)).sum()))
    top, bottom, left, right = map(int, re.search(r"rows (\d+) to (\d+) and columns (\d+) to (\d+)", prompt).groups())
    parts, boards = [], Counter()
    while boards[board.tobytes()] < 2:  # twice round what repeats for ever
        boards[board.tobytes()] += 1
        parts.append(board[top : bottom + 1, left : right + 1].tobytes())
        board = after(board)
    changed = [k + 1 for k in range(len(parts) - 1) if parts[k] != parts[k + 1]]
    return str(max(changed, default=0))


WAYS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


def pushed(signs, player, boxes, way):
    """Player and boxes after a move on a board of signs by cell."""
    to = (player[0] + way[0], player[1] + way[1])
    if signs.get(to, "#") == "#":
        return player, boxes
    if to not in boxes:
        return to, boxes
    on = (to[0] + way[0], to[1] + way[1])
    if signs.get(on, "#") == "#" or on in boxes:
        return player, boxes
    return to, tuple(on if box == to else box for box in boxes)


def sokoban(row):
    prompt = row["prompt"]
    signs = {(i, j): sign for i, line in enumerate(drawn(prompt)) for j, sign in enumerate(line)}
    numbers = {(i, j): n for i, cells in enumerate(row["state"]["grid"]) for j, n in enumerate(cells)}
    assert signs == {cell: ".#bt*px"[n] for cell, n in numbers.items()}
    (player,) = (cell for cell, sign in signs.items() if sign in "px")
    boxes = tuple(cell for cell, sign in signs.items() if sign in "b*")
    goals = {cell for cell, sign in signs.items() if sign in "t*x"}
    assert len(boxes) == len(goals) >= 1
    asked = prompt.split("\n\n")[2]
    named = [(int(i), int(j)) for i, j in re.findall(r"\((\d+), (\d+)\)", asked.split("\n")[0])]
    task = row["task"]
    if task == "player":
        return str(player)
    if task == "distance":
        (a, b), (c, d) = named or (boxes[0], min(goals))
        assert not named or (named[0] in boxes and named[1] in goals)
        return str(abs(a - c) + abs(b - d))
    if task in ("moved-player", "moved-box"):
        moves = re.search(r"after the moves ([a-z, ]+)\?", asked)[1].split(", ")
        which = boxes.index(named[0]) if named else 0
        for move in moves:
            player, boxes = pushed(signs, player, boxes, WAYS[move])
        return str(player if task == "moved-player" else boxes[which])
    if task == "walk":
        frontier, steps, seen = {player}, 0, {player}
        while named[0] not in frontier:
            near = {(i + a, j + b) for i, j in frontier for a, b in WAYS.values()}
            frontier = {cell for cell in near - seen if signs.get(cell, "#") != "#" and cell not in boxes}
            assert frontier
            seen |= frontier
            steps += 1
        return str(steps)
    frontier, steps, seen = {(player, frozenset(boxes))}, 0, {(player, frozenset(boxes))}
    while not any(boxes == goals for _, boxes in frontier):
        after = set()
        for at, there in frontier:
            for way in WAYS.values():
                to, moved = pushed(signs, at, tuple(there), way)
                after.add((to, frozenset(moved)))
        frontier = after - seen
        assert frontier
        seen |= frontier
        steps += 1
    return str(steps)


def wrong(row):
    """Why a row's answer is wrong; None if it is right."""
    found, right = said(row), {"langtons-ant": langtons_ant, "life": life, "sokoban": sokoban}[row["game"]](row)
    return None if found == right else f"{row['game']}/{row['task']}: {found}, but it is {right}\n{row['prompt']}"
