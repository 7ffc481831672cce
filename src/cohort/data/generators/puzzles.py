"""Puzzles that any picture makes: put its tiles in order, turn it back, find the patch that is missing.

Source: arXiv:2512.14944.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cohort.data.generators import drawing
from cohort.data.generators.scenery import Picture, landscape, photograph, pictures_in
from cohort.data.generators.task import Task
from cohort.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

Lines = Sequence[str]
Place = tuple[int, int]
TASKS = ("jigsaw", "rotation", "patch")
TILES = ("2x2", "2x3", "3x2", "3x3", "4x4", "5x5")
ANGLES = (0, 90, 180, 270)
# Of the whole picture, as characters and as pixels; more of them where a jigsaw has many tiles.
SIGNS, PIXELS = 12, 240
# Characters across a tile, at least.
TILE = 4
# Side of a patch, in parts of the picture.
PATCH = 4
_TRIES = 200
THINK = "Think between <think> and </think>, then write the answer between <answer> and </answer>."


def make(
    rng: random.Random,
    *,
    task: Annotated[str | None, "order the tiles, name the angle, or pick the patch; all by default", TASKS] = None,
    tiles: Annotated[str, "rows and columns of a jigsaw", TILES] = "2x2",
    folder: Annotated[str | None, "folder of your own pictures; landscapes are drawn by default"] = None,
) -> Task:
    """Puzzles of pictures, drawn or your own: jigsaws, turned pictures, missing patches"""
    kind = task or rng.choice(TASKS)
    paths = None if folder is None else pictures_in(folder)

    def draw() -> Picture:
        return landscape(rng) if paths is None else photograph(rng, paths)

    for _ in range(_TRIES):
        made = jigsaw(rng, draw(), tiles) if kind == "jigsaw" else MAKERS[kind](rng, draw)
        if made is not None:
            return made
    raise UsageError(
        f"--folder {folder or 'none'}: the pictures are too uniform to make a {kind} of: choose others"
        + (", or fewer --tiles" if kind == "jigsaw" else "")
    )


def _task(picture: Picture, kind: str, lines: Lines, **what: Any) -> Task:
    state = {"picture": list(lines), "source": picture.source, **what.pop("state", {})}
    return Task(rules="", columns={"task": kind, "state": state, **what.pop("columns", {})}, **what)


def _shown(picture: Picture, lines: Lines) -> str:
    return f"{len(lines)} lines of characters ({picture.legend}):\n" + "\n".join(lines)


# Jigsaw ---------------------------------------------------------------------------------------------------------------


def cut(lines: Lines, rows: int, columns: int) -> list[tuple[str, ...]]:
    """The tiles of a picture of characters, in reading order."""
    height, width = len(lines) // rows, len(lines[0]) // columns
    return [
        tuple(line[j * width : (j + 1) * width] for line in lines[i * height : (i + 1) * height])
        for i in range(rows)
        for j in range(columns)
    ]


def joined(tiles: Sequence[Sequence[str]], columns: int) -> list[str]:
    """The picture of tiles in reading order."""
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    return ["".join(parts) for row in rows for parts in zip(*row, strict=True)]


def jigsaw(rng: random.Random, picture: Picture, tiles: str) -> Task | None:
    """Tiles in another order; None if some of them are alike."""
    rows, columns = map(int, tiles.split("x"))
    lines = picture.text(rows * max(TILE, -(-SIGNS // rows)), columns * max(TILE, -(-SIGNS // columns)))
    parts = cut(lines, rows, columns)
    if len(set(parts)) < len(parts):
        return None
    order = list(range(len(parts)))
    while order == sorted(order):
        rng.shuffle(order)
    # Tile k stands where tile order[k] was.
    answer = ",".join(str(order.index(place) + 1) for place in range(len(order)))
    scene = _shown(picture, joined([parts[i] for i in order], columns))
    return _task(
        picture,
        "jigsaw",
        lines,
        scene=f"A picture was cut into {rows} rows and {columns} columns of tiles, which were shuffled. It is now {scene}",
        seen=f"The picture was cut into {rows} rows and {columns} columns of tiles, which were shuffled.",
        question=f"The tiles as they stand now are numbered from 1 to {len(order)}, row by row from the left. For each place "
        "of the original picture, row by row from the left, name the tile that belongs there, as numbers with commas between "
        f"them. {THINK}",
        answer=answer,
        columns={"tiles": tiles},
        state={"order": [i + 1 for i in order]},
        pictures=(lambda: _shuffled(picture, rows, columns, order),),
    )


def _shuffled(picture: Picture, rows: int, columns: int, order: Sequence[int]) -> Image:
    from PIL import Image

    height, width = -(-PIXELS // rows), -(-PIXELS // columns)
    whole = picture.image(rows * height, columns * width)
    out = Image.new("RGB", whole.size)
    for place, tile in enumerate(order):
        i, j = divmod(tile, columns)
        part = whole.crop((j * width, i * height, (j + 1) * width, (i + 1) * height))
        out.paste(part, (place % columns * width, place // columns * height))
    return out


# Rotation -------------------------------------------------------------------------------------------------------------


def turned(lines: Lines, angle: int) -> list[str]:
    """A picture of characters, turned clockwise by a multiple of 90 degrees."""
    for _ in range(angle // 90):
        lines = ["".join(column) for column in zip(*reversed(lines), strict=True)]
    return list(lines)


def rotation(rng: random.Random, draw: Callable[[], Picture]) -> Task | None:
    """A turned picture; None if it looks alike from two sides."""
    picture = draw()
    lines = picture.text(SIGNS, SIGNS)
    if len({tuple(turned(lines, angle)) for angle in ANGLES}) < len(ANGLES):
        return None
    angle = rng.choice(ANGLES)
    return _task(
        picture,
        "rotation",
        lines,
        scene=f"A picture that stood upright was turned clockwise. It is now {_shown(picture, turned(lines, angle))}",
        seen="The picture stood upright, and was turned clockwise.",
        question=f"By how many degrees was it turned: 0, 90, 180 or 270? {THINK}",
        answer=str(angle),
        pictures=(lambda: _turned(picture, angle),),
    )


def _turned(picture: Picture, angle: int) -> Image:
    from PIL.Image import Transpose

    whole = picture.image(PIXELS, PIXELS)
    # Pillow turns counterclockwise.
    ways = {90: Transpose.ROTATE_270, 180: Transpose.ROTATE_180, 270: Transpose.ROTATE_90}
    return whole.transpose(ways[angle]) if angle else whole


# Patch ----------------------------------------------------------------------------------------------------------------


def patch_at(lines: Lines, row: int, column: int) -> tuple[str, ...]:
    """The characters of a patch."""
    side = SIGNS // PATCH
    return tuple(line[column : column + side] for line in lines[row : row + side])


def patch(rng: random.Random, draw: Callable[[], Picture]) -> Task | None:
    """A picture with a hole, and four patches, some of them of another picture; None if they are not different enough."""
    picture, other = draw(), draw()
    lines, side = picture.text(SIGNS, SIGNS), SIGNS // PATCH
    places = [(i, j) for i in range(SIGNS - side + 1) for j in range(SIGNS - side + 1)]
    hole = rng.choice(places)
    missing = patch_at(lines, *hole)
    apart = [place for place in places if abs(place[0] - hole[0]) >= side or abs(place[1] - hole[1]) >= side]
    near = [(picture, place) for place in rng.sample(apart, len(apart))]
    # At the same height, so that it could be the one.
    far = [(other, (hole[0], column)) for column in rng.sample(range(SIGNS - side + 1), SIGNS - side + 1)]
    offered = {missing: (picture, hole)}
    for pool, most in ((near, rng.randint(2, 3)), (far, 4)):
        for source, place in pool:
            if len(offered) < most:
                offered.setdefault(patch_at(source.text(SIGNS, SIGNS), *place), (source, place))
    if len(offered) < 4 or len(set("".join(missing))) < 2:
        return None
    options = list(offered.items())
    rng.shuffle(options)
    letter = "ABCD"[[text for text, _ in options].index(missing)]
    open_ = [
        "".join(
            "?" if hole[0] <= i < hole[0] + side and hole[1] <= j < hole[1] + side else sign
            for j, sign in enumerate(line)
        )
        for i, line in enumerate(lines)
    ]
    shown = "\n".join(f"{name}:\n" + "\n".join(each) for name, (each, _) in zip("ABCD", options, strict=True))
    return _task(
        picture,
        "patch",
        lines,
        scene=f"A patch was cut out of a picture. It is now {_shown(picture, open_)}\n\nFour patches:\n{shown}",
        seen="A patch was cut out of the picture, where it is black. Below it are four patches.",
        question=f"Which of the patches A, B, C and D was cut out? Answer with its letter. {THINK}",
        answer=letter,
        state={"hole": list(hole), "options": [list(text) for text, _ in options]},
        pictures=(lambda: _with_patches(picture, hole, [where for _, where in options]),),
    )


def _with_patches(picture: Picture, hole: Place, options: Sequence[tuple[Picture, Place]]) -> Image:
    from PIL import Image, ImageDraw

    cell = PIXELS // SIGNS
    side = cell * (SIGNS // PATCH)
    whole = picture.image(PIXELS, PIXELS)

    def box(place: Place) -> tuple[int, int, int, int]:
        return place[1] * cell, place[0] * cell, place[1] * cell + side, place[0] * cell + side

    out = Image.new("RGB", (PIXELS, PIXELS + side + 30), "white")
    out.paste(whole, (0, 0))
    draw = ImageDraw.Draw(out)
    left, top, right, bottom = box(hole)
    draw.rectangle((left, top, right - 1, bottom - 1), fill="black")
    for i, (source, place) in enumerate(options):
        at = i * PIXELS // 4
        draw.text((at + side // 2, PIXELS + 12), "ABCD"[i], fill="black", font=drawing.font(16), anchor="mm")
        out.paste(source.image(PIXELS, PIXELS).crop(box(place)), (at, PIXELS + 25))
    return out


MAKERS: dict[str, Callable[[random.Random, Callable[[], Picture]], Task | None]] = {
    "rotation": rotation,
    "patch": patch,
}
