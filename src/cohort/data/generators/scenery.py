"""Pictures that puzzles are made of: landscapes that are drawn at random, or photographs of the user's folder.

Both can be had at any size, as pixels and as characters.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from cohort.data.generators.drawing import check_pillow
from cohort.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

# From dark to light.
TONES = "@%#*+=-:,."
KINDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class Picture(Protocol):
    """What a puzzle is made of."""

    @property
    def source(self) -> Any:
        """What it can be made of again: JSON."""

    @property
    def legend(self) -> str:
        """What its characters mean."""

    def text(self, height: int, width: int) -> list[str]:
        """Its characters, a line a row."""

    def image(self, height: int, width: int) -> Image:
        """Its pixels."""


# Landscapes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """A filled shape.

    Attributes:
        kind: "triangle" stands on the lower edge of its box, its tip in the middle of the upper one.
        sign: its character.
        box: left, top, right, bottom, in parts of the picture.
    """

    kind: Literal["rectangle", "ellipse", "triangle"]
    sign: str
    colour: str
    box: tuple[float, float, float, float]

    def covers(self, x: float, y: float) -> bool:
        left, top, right, bottom = self.box
        if not (left <= x <= right and top <= y <= bottom):
            return False
        across, down = (2 * x - left - right) / (right - left), (y - top) / (bottom - top)
        if self.kind == "ellipse":
            return across**2 + (2 * down - 1) ** 2 <= 1
        return self.kind == "rectangle" or abs(across) <= down


LEGEND = (
    ". high sky, - low sky, O sun, ~ cloud, v bird, ^ hill, = far meadow, _ near meadow, # wall, A roof, | trunk, & crown of "
    "a tree, * flower, w water"
)


@dataclass(frozen=True)
class Landscape:
    """Sky above meadows, with what stands there; the later shapes in front."""

    shapes: tuple[Shape, ...]

    @property
    def source(self) -> list[list[Any]]:
        return [[shape.kind, shape.sign, shape.colour, list(shape.box)] for shape in self.shapes]

    @property
    def legend(self) -> str:
        return LEGEND

    def text(self, height: int, width: int) -> list[str]:
        def sign(x: float, y: float) -> str:
            return next(shape.sign for shape in reversed(self.shapes) if shape.covers(x, y))

        return ["".join(sign((j + 0.5) / width, (i + 0.5) / height) for j in range(width)) for i in range(height)]

    def image(self, height: int, width: int) -> Image:
        from PIL import Image, ImageDraw

        picture = Image.new("RGB", (width, height))
        draw = ImageDraw.Draw(picture)
        for shape in self.shapes:
            left, top, right, bottom = (
                part * size for part, size in zip(shape.box, (width, height, width, height), strict=True)
            )
            if shape.kind == "rectangle":
                draw.rectangle((left, top, right, bottom), fill=shape.colour)
            elif shape.kind == "ellipse":
                draw.ellipse((left, top, right, bottom), fill=shape.colour)
            else:
                draw.polygon([(left, bottom), (right, bottom), ((left + right) / 2, top)], fill=shape.colour)
        return picture


def _box(left: float, top: float, width: float, height: float) -> tuple[float, float, float, float]:
    return round(left, 3), round(top, 3), round(left + width, 3), round(top + height, 3)


def landscape(rng: random.Random) -> Landscape:
    """A landscape: what is above stands above in it."""
    horizon = rng.uniform(0.45, 0.6)
    near = horizon + rng.uniform(0.15, 0.25)
    shapes = [
        Shape("rectangle", ".", rng.choice(("#5b9bd5", "#6aa9e9", "#8fb8de")), _box(0, 0, 1, 1)),
        Shape(
            "rectangle", "-", rng.choice(("#a9d0f5", "#cfe4f7", "#f3d9c0")), _box(0, horizon / 2, 1, 1 - horizon / 2)
        ),
    ]

    def add(kind: Literal["rectangle", "ellipse", "triangle"], sign: str, colour: str, *box: float) -> None:
        shapes.append(Shape(kind, sign, colour, _box(*box)))

    for _ in range(rng.randint(1, 3)):
        width, height = rng.uniform(0.3, 0.6), rng.uniform(0.12, 0.3)
        shade = rng.choice(("#7a8f6a", "#8a8f9a", "#6f7f5f"))
        add("triangle", "^", shade, rng.uniform(-0.1, 0.8), horizon - height, width, height)
    add("rectangle", "=", rng.choice(("#8fbf5f", "#a3c26b", "#c9b458")), 0, horizon, 1, 1 - horizon)
    add("rectangle", "_", rng.choice(("#5f9f3f", "#6f8f3f", "#4f8f5f")), 0, near, 1, 1 - near)
    if rng.random() < 0.7:
        size = rng.uniform(0.12, 0.2)
        add("ellipse", "O", "#ffd23f", rng.uniform(0, 1 - size), rng.uniform(0.02, 0.15), size, size)
    for _ in range(rng.randint(1, 3)):
        width = rng.uniform(0.15, 0.35)
        add(
            "ellipse",
            "~",
            "#ffffff",
            rng.uniform(0, 1 - width),
            rng.uniform(0.02, horizon / 2),
            width,
            rng.uniform(0.08, 0.12),
        )
    for _ in range(rng.randint(0, 3)):
        add("triangle", "v", "#303030", rng.uniform(0, 0.9), rng.uniform(0.02, horizon - 0.1), 0.09, 0.09)
    for _ in range(rng.randint(1, 3)):
        left, foot = rng.uniform(0, 0.9), rng.uniform(horizon + 0.08, near + 0.05)
        height = rng.uniform(0.2, 0.32)
        add("rectangle", "|", "#6b4226", left + 0.04, foot - height / 2, 0.06, height / 2)
        add(
            "ellipse",
            "&",
            rng.choice(("#2f6f2f", "#3f7f4f", "#a0522d")),
            left - 0.04,
            foot - height,
            0.22,
            height * 0.65,
        )
    for _ in range(rng.randint(1, 2)):
        width, height = rng.uniform(0.18, 0.3), rng.uniform(0.12, 0.2)
        left, foot = rng.uniform(0, 1 - width), rng.uniform(horizon + 0.1, near + 0.12)
        add("rectangle", "#", rng.choice(("#e8e0d0", "#d9b38c", "#c0c0c0")), left, foot - height, width, height)
        add(
            "triangle",
            "A",
            rng.choice(("#a03020", "#704030", "#505a70")),
            left - 0.04,
            foot - height - 0.12,
            width + 0.08,
            0.12,
        )
    if rng.random() < 0.5:
        width = rng.uniform(0.2, 0.45)
        add("ellipse", "w", "#4f86c6", rng.uniform(0, 1 - width), near + 0.03, width, rng.uniform(0.09, 0.14))
    for _ in range(rng.randint(2, 6)):
        colour = rng.choice(("#e04060", "#f0f040", "#b050d0"))
        add("ellipse", "*", colour, rng.uniform(0, 0.91), rng.uniform(near, 0.9), 0.09, 0.09)
    return Landscape(tuple(shapes))


# Photographs ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Photograph:
    """A square of a picture in the user's folder.

    Attributes:
        box: left, top, right, bottom, in pixels.
    """

    path: Path
    box: tuple[int, int, int, int]

    @property
    def source(self) -> list[Any]:
        return [self.path.name, list(self.box)]

    @property
    def legend(self) -> str:
        return f"from dark to light: {' '.join(TONES)}"

    def text(self, height: int, width: int) -> list[str]:
        from PIL import ImageOps

        tones = ImageOps.autocontrast(self.image(height, width).convert("L")).tobytes()
        signs = "".join(TONES[tone * len(TONES) // 256] for tone in tones)
        return [signs[i * width : (i + 1) * width] for i in range(height)]

    def image(self, height: int, width: int) -> Image:
        from PIL.Image import Resampling

        return _opened(self.path).resize((width, height), Resampling.BOX, box=self.box)


@lru_cache(maxsize=8)
def _opened(path: Path) -> Image:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            # Cameras write down how they were held.
            return ImageOps.exif_transpose(picture).convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"--folder: the picture {path} cannot be read: {error}") from error


@lru_cache(maxsize=8)
def pictures_in(folder: str) -> tuple[Path, ...]:
    """The pictures of a folder and its subfolders, by name.

    Raises:
        UsageError: there is no such folder, or no picture in it.
    """
    where = Path(folder).expanduser()
    if not where.is_dir():
        raise UsageError(f"--folder {folder}: there is no such folder")
    found = tuple(sorted(path for path in where.rglob("*") if path.suffix.lower() in KINDS and path.is_file()))
    if not found:
        raise UsageError(f"--folder {folder}: it holds no picture ({', '.join(KINDS)})")
    return found


def photograph(rng: random.Random, paths: Sequence[Path]) -> Photograph:
    """A square of one of some pictures: at least six tenths of its shorter side."""
    check_pillow("the pictures of a folder")
    path = rng.choice(paths)
    width, height = _opened(path).size
    side = max(1, round(min(width, height) * rng.uniform(0.6, 1)))
    left, top = rng.randint(0, width - side), rng.randint(0, height - side)
    return Photograph(path, (left, top, left + side, top + side))
