"""The solutions of puzzles once more: by what the prompt and the picture show, and the picture that the state keeps."""

from __future__ import annotations

import re
from itertools import permutations

import numpy as np

from cohort.data.generators.scenery import Landscape, Shape


def lines_of(prompt):
    many = int(re.search(r"It is now (\d+) lines", prompt)[1])
    return prompt[prompt.index("It is now") :].split("\n")[1 : many + 1]


def array(lines):
    return np.array([list(line) for line in lines])


def jigsaw(row):
    """The one order that makes the picture, found tile by tile."""
    rows, columns = map(int, row["tiles"].split("x"))
    whole, now = array(row["state"]["picture"]), array(lines_of(row["prompt"]))
    height, width = whole.shape[0] // rows, whole.shape[1] // columns
    tiles = [now[i * height :, j * width :][:height, :width] for i in range(rows) for j in range(columns)]
    found = []
    for i in range(rows):
        for j in range(columns):
            place = whole[i * height :, j * width :][:height, :width]
            (k,) = (k for k, tile in enumerate(tiles) if (tile == place).all())
            found.append(k + 1)
    return ",".join(map(str, found))


def rotation(row):
    whole, now = array(row["state"]["picture"]), array(lines_of(row["prompt"]))
    (angle,) = (90 * k for k in range(4) if (np.rot90(whole, -k) == now).all())
    return str(angle)


def patch(row):
    whole, now = array(row["state"]["picture"]), array(lines_of(row["prompt"]))
    (i,), (j,) = {p[0] for p in np.argwhere(now == "?")[:1]}, {p[1] for p in np.argwhere(now == "?")[:1]}
    side = int((now == "?").sum() ** 0.5)
    missing = whole[i : i + side, j : j + side]
    assert ((now == whole) | (now == "?")).all()
    assert (now[i : i + side, j : j + side] == "?").all()
    offered = row["prompt"].split("Four patches:\n")[1].split("\n\n")[0].split("\n")
    options = {offered[k][0]: array(offered[k + 1 : k + 1 + side]) for k in range(0, len(offered), side + 1)}
    assert list(options) == ["A", "B", "C", "D"]
    (letter,) = (name for name, each in options.items() if (each == missing).all())
    assert len({each.tobytes() for each in options.values()}) == 4
    return letter


def wrong(row):
    """Why a row's answer is wrong; None if it is right."""
    right = {"jigsaw": jigsaw, "rotation": rotation, "patch": patch}[row["task"]](row)
    return None if row["answer"] == right else f"{row['task']}: {row['answer']}, but it is {right}\n{row['prompt']}"


# pictures -------------------------------------------------------------------------------------------------------------


def wrong_picture(row, picture, original):
    """Why a picture does not show the puzzle of its row; None if it does.

    Args:
        original: the untouched picture at that size.
    """
    now, whole = np.asarray(picture), np.asarray(original)
    if row["task"] == "rotation":
        return None if (np.rot90(whole, -int(row["answer"]) // 90) == now).all() else "another turn"
    if row["task"] == "jigsaw":
        rows, columns = map(int, row["tiles"].split("x"))
        height, width = whole.shape[0] // rows, whole.shape[1] // columns
        for place, number in enumerate(map(int, row["answer"].split(","))):
            (i, j), (k, m) = divmod(place, columns), divmod(number - 1, columns)
            mine = whole[i * height : (i + 1) * height, j * width : (j + 1) * width]
            if (now[k * height : (k + 1) * height, m * width : (m + 1) * width] != mine).any():
                return f"tile {number} does not belong at place {place + 1}"
        return None
    size = whole.shape[0]
    cell, side = size // 12, size // 4
    i, j = row["state"]["hole"]
    missing = whole[i * cell : i * cell + side, j * cell : j * cell + side]
    same = now[:size] == whole
    same[i * cell : i * cell + side, j * cell : j * cell + side] = True
    letters = [
        "ABCD"[k]
        for k in range(4)
        if (now[size + 25 : size + 25 + side, k * size // 4 : k * size // 4 + side] == missing).all()
    ]
    return None if same.all() and letters == [row["answer"]] else f"patches {letters} fit"


def landscape_of(row):
    return Landscape(tuple(Shape(kind, sign, colour, tuple(box)) for kind, sign, colour, box in row["state"]["source"]))


def solvable(row):
    """Whether exactly one order of a jigsaw of few tiles makes the picture."""
    rows, columns = map(int, row["tiles"].split("x"))
    whole, now = array(row["state"]["picture"]), array(lines_of(row["prompt"]))
    height, width = whole.shape[0] // rows, whole.shape[1] // columns
    tiles = [now[i * height :, j * width :][:height, :width] for i in range(rows) for j in range(columns)]
    made = 0
    for order in permutations(tiles):
        made += bool((np.block([list(order[i * columns : (i + 1) * columns]) for i in range(rows)]) == whole).all())
    return made == 1
