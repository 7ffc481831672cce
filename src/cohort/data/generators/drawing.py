"""Pictures of boards, drawn with pillow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cohort.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

CELL = 36
MARGIN = 28
Box = tuple[int, int, int, int]


def check_pillow(what: str) -> None:
    """Raises:
    UsageError: pillow is not installed; the message says what needs it.
    """
    try:
        import PIL.ImageDraw  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"{what} can only be had with pillow, which is not installed: pip install 'cohort-rl[pictures]', or leave it out"
        ) from error


def font(size: int) -> ImageFont | FreeTypeFont:
    """The font that pillow brings."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def board(colours: Sequence[Sequence[str]]) -> tuple[Image, ImageDraw]:
    """A picture of a grid of coloured cells with the numbers of its rows and columns, and what draws on it."""
    from PIL import Image, ImageDraw

    rows, columns = len(colours), len(colours[0])
    picture = Image.new("RGB", (MARGIN + columns * CELL + 4, MARGIN + rows * CELL + 4), "white")
    draw = ImageDraw.Draw(picture)
    for i, row in enumerate(colours):
        for j, colour in enumerate(row):
            draw.rectangle(cell(i, j), fill=colour, outline="#808080")
    for i in range(rows):
        draw.text((MARGIN // 2, MARGIN + i * CELL + CELL // 2), str(i), fill="black", font=font(14), anchor="mm")
    for j in range(columns):
        draw.text((MARGIN + j * CELL + CELL // 2, MARGIN // 2), str(j), fill="black", font=font(14), anchor="mm")
    return picture, draw


def cell(row: int, column: int, inset: int = 0) -> Box:
    """Left, top, right, bottom of a cell, drawn in by `inset` pixels."""
    left, top = MARGIN + column * CELL, MARGIN + row * CELL
    return left + inset, top + inset, left + CELL - inset, top + CELL - inset


def arrow(draw: ImageDraw, row: int, column: int, facing: str, colour: str) -> None:
    """A triangle in a cell that points up, right, down or left."""
    left, top, right, bottom = cell(row, column, 7)
    across, down = (left + right) // 2, (top + bottom) // 2
    corners = {
        "up": [(left, bottom), (right, bottom), (across, top)],
        "right": [(left, top), (left, bottom), (right, down)],
        "down": [(left, top), (right, top), (across, bottom)],
        "left": [(right, top), (right, bottom), (left, down)],
    }
    draw.polygon(corners[facing], fill=colour, outline="black")
