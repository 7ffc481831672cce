"""What a camera sees of a room, drawn with pillow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cohort.data.generators import drawing
from cohort.data.generators.spatial.scene import HALF_HEIGHT, HALF_WIDTH, Camera, Scene, Thing, Vector

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTH = 480
HEIGHT = round(WIDTH * math.tan(math.radians(HALF_HEIGHT)) / math.tan(math.radians(HALF_WIDTH)))
_NEAR = 0.05
_RGB = {
    "red": (205, 60, 50),
    "blue": (60, 100, 200),
    "green": (70, 150, 80),
    "yellow": (225, 200, 70),
    "white": (235, 235, 235),
    "black": (60, 60, 60),
    "orange": (225, 140, 60),
    "purple": (140, 85, 165),
}
# The sides of a box: which of its corners, by the bits x, y, z, and how light they are.
_SIDES = (((0, 2, 6, 4), 0.75), ((1, 3, 7, 5), 0.85), ((0, 1, 5, 4), 0.65), ((2, 3, 7, 6), 0.9), ((4, 5, 7, 6), 1.0))
# The walls, the ceiling and the floor of a room.
_WALLS = (
    ((0, 1, 5, 4), "#e4e0d8"),
    ((2, 3, 7, 6), "#e4e0d8"),
    ((0, 2, 6, 4), "#dcd8d0"),
    ((1, 3, 7, 5), "#dcd8d0"),
    ((4, 5, 7, 6), "#f4f2ee"),
    ((0, 1, 3, 2), "#b8a890"),
)


def corners(scene: Scene) -> list[Camera]:
    """Cameras in the four upper corners of a room."""
    wide, deep, high = scene.size
    found = []
    for x, y in ((0.15, 0.15), (wide - 0.15, 0.15), (wide - 0.15, deep - 0.15), (0.15, deep - 0.15)):
        across = math.hypot(wide / 2 - x, deep / 2 - y)
        yaw = math.degrees(math.atan2(deep / 2 - y, wide / 2 - x))
        found.append(Camera((x, y, high - 0.2), round(yaw), -round(math.degrees(math.atan2(high - 0.7, across)))))
    return found


def _projected(camera: Camera, polygon: Sequence[Vector]) -> list[tuple[float, float]]:
    """A polygon in pixels, without what lies behind the camera."""
    points = [camera.seen_from(point) for point in polygon]
    kept: list[Vector] = []
    for a, b in zip(points, [*points[1:], points[0]], strict=True):
        if a[2] >= _NEAR:
            kept.append(a)
        if (a[2] >= _NEAR) != (b[2] >= _NEAR):
            t = (_NEAR - a[2]) / (b[2] - a[2])
            kept.append((a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]), _NEAR))
    scale = WIDTH / 2 / math.tan(math.radians(HALF_WIDTH))
    return [(WIDTH / 2 + scale * x / z, HEIGHT / 2 - scale * y / z) for x, y, z in kept]


def _box(low: Vector, high: Vector) -> list[Vector]:
    return [tuple((low, high)[bits >> axis & 1][axis] for axis in range(3)) for bits in range(8)]  # type: ignore[misc]


def _facing(camera: Camera, thing: Thing) -> list[tuple[list[Vector], float]]:
    """The sides of a box that look at the camera."""
    at, found = _box(thing.low, thing.high), []
    sides = (
        camera.place[0] < thing.low[0],
        camera.place[0] > thing.high[0],
        camera.place[1] < thing.low[1],
        camera.place[1] > thing.high[1],
        camera.place[2] > thing.high[2],
    )
    for (which, light), faces in zip(_SIDES, sides, strict=True):
        if faces:
            found.append(([at[i] for i in which], light))
    return found


def _before(camera: Camera, a: Thing, b: Thing) -> bool:
    """Whether a box may hide another: a plane of one of its sides has the camera and it on one side, the other beyond."""
    for axis in range(3):
        if a.high[axis] <= b.low[axis] and camera.place[axis] < b.low[axis]:
            return True
        if a.low[axis] >= b.high[axis] and camera.place[axis] > b.high[axis]:
            return True
    return False


def back_to_front(camera: Camera, things: Sequence[Thing]) -> list[Thing]:
    """Boxes in an order in which later ones may hide earlier ones."""
    left, order = list(things), []
    while left:
        # What hides none of the others; the farthest, should they hide each other in a ring.
        free = [
            a for a in left if not any(_before(camera, a, b) and not _before(camera, b, a) for b in left if b is not a)
        ]
        first = max(free or left, key=lambda thing: math.dist(thing.centre, camera.place))
        order.append(first)
        left.remove(first)
    return order


def picture(scene: Scene, camera: Camera) -> Image:
    """What a camera sees, with the names of things."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (WIDTH, HEIGHT), "#d8d4cc")
    draw = ImageDraw.Draw(image)
    at = _box((0.0, 0.0, 0.0), scene.size)
    for which, colour in _WALLS:
        wall = _projected(camera, [at[i] for i in which])
        if len(wall) > 2:
            draw.polygon(wall, fill=colour, outline="#a0a0a0")
    for thing in back_to_front(camera, scene.things):
        for side, light in _facing(camera, thing):
            points = _projected(camera, side)
            if len(points) > 2:
                draw.polygon(points, fill=tuple(round(light * part) for part in _RGB[thing.colour]), outline="#303030")
    for thing in scene.things:
        seen = [
            point
            for point, _ in thing.points(camera.place)
            if camera.in_view(point) and not any(other.blocks(camera.place, point) for other in scene.things)
        ]
        if seen:
            ((x, y),) = _projected(camera, [max(seen, key=lambda point: (point[2], point[0], point[1]))])
            box = draw.textbbox((x, y), thing.kind, font=drawing.font(12), anchor="mm")
            draw.rectangle(box, fill="white")
            draw.text((x, y), thing.kind, fill="black", font=drawing.font(12), anchor="mm")
    return image
