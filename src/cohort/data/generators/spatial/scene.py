"""A room with boxes and cameras, and its geometry. Lengths are in metres, angles in degrees.

x runs along the width of the room, y along its depth, z upwards. A yaw of 0 looks along x, of 90 along y; a pitch above 0 looks
up. Everything is rounded to centimetres and degrees, so that the text of a scene says all that its answers follow from.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Vector = tuple[float, float, float]
# Half of what a camera sees, in degrees: to the sides, and up and down.
HALF_WIDTH, HALF_HEIGHT = 40, 30
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "orange", "purple")
# What there is: width, depth, height, each from and to.
KINDS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "chair": ((0.4, 0.55), (0.4, 0.55), (0.8, 1.0)),
    "table": ((1.0, 1.8), (0.7, 1.0), (0.7, 0.78)),
    "sofa": ((1.5, 2.2), (0.8, 1.0), (0.7, 0.9)),
    "bed": ((1.4, 1.8), (1.9, 2.1), (0.45, 0.6)),
    "cabinet": ((0.6, 1.2), (0.35, 0.55), (1.0, 2.0)),
    "stool": ((0.3, 0.4), (0.3, 0.4), (0.4, 0.6)),
    "crate": ((0.4, 0.8), (0.4, 0.8), (0.3, 0.7)),
    "lamp": ((0.25, 0.35), (0.25, 0.35), (1.3, 1.7)),
}
# Where points stand on each side of a box, from its middle to its edges.
_GRID = (-0.8, -0.4, 0.0, 0.4, 0.8)


@dataclass(frozen=True)
class Thing:
    """A box that stands along the walls of the room.

    Attributes:
        kind: of KINDS.
        centre, size: [3].
    """

    kind: str
    colour: str
    centre: Vector
    size: Vector

    @property
    def name(self) -> str:
        return f"{self.colour} {self.kind}"

    @cached_property
    def low(self) -> Vector:
        return tuple(c - s / 2 for c, s in zip(self.centre, self.size, strict=True))  # type: ignore[return-value]

    @cached_property
    def high(self) -> Vector:
        return tuple(c + s / 2 for c, s in zip(self.centre, self.size, strict=True))  # type: ignore[return-value]

    def points(self, eye: Vector) -> list[tuple[Vector, float]]:
        """25 points on each side that looks at an eye, slightly outside; each with its share of the box's surface.

        The lower side, on which it stands, is not counted.
        """
        area = [self.size[1] * self.size[2], self.size[0] * self.size[2], self.size[0] * self.size[1]]
        whole = 25 * (2 * area[0] + 2 * area[1] + area[2])
        found: list[tuple[Vector, float]] = []
        for axis, sign in ((0, -1), (0, 1), (1, -1), (1, 1), (2, 1)):
            if (eye[axis] - self.centre[axis]) * sign <= self.size[axis] / 2:
                continue
            for u in _GRID:
                for v in _GRID:
                    at = [u, v]
                    at.insert(axis, 1.001 * sign)
                    x, y, z = (c + s / 2 * a for c, s, a in zip(self.centre, self.size, at, strict=True))
                    found.append(((x, y, z), area[axis] / whole))
        return found

    def blocks(self, start: Vector, end: Vector) -> bool:
        """Whether the way from one point to another leads through the box."""
        first, last = 0.0, 1.0
        for a, b, low, high in zip(start, end, self.low, self.high, strict=True):
            if a == b:
                if not low < a < high:
                    return False
                continue
            enter, leave = sorted(((low - a) / (b - a), (high - a) / (b - a)))
            first, last = max(first, enter), min(last, leave)
        return first < last


@dataclass(frozen=True)
class Camera:
    """A camera that stands upright.

    Attributes:
        place: [3].
        yaw, pitch: in degrees.
    """

    place: Vector
    yaw: int
    pitch: int

    @cached_property
    def axes(self) -> tuple[Vector, Vector, Vector]:
        """Where right, up and forward are for it."""
        yaw, pitch = math.radians(self.yaw), math.radians(self.pitch)
        forward = (math.cos(pitch) * math.cos(yaw), math.cos(pitch) * math.sin(yaw), math.sin(pitch))
        right = (math.sin(yaw), -math.cos(yaw), 0.0)
        up = (-math.sin(pitch) * math.cos(yaw), -math.sin(pitch) * math.sin(yaw), math.cos(pitch))
        return right, up, forward

    def seen_from(self, point: Vector) -> Vector:
        """A point as the camera has it: metres to the right, up and forward."""
        offset = minus(point, self.place)
        return tuple(sum(a * b for a, b in zip(axis, offset, strict=True)) for axis in self.axes)  # type: ignore[return-value]

    def in_view(self, point: Vector) -> bool:
        """Whether a point lies within what the camera sees, if nothing stands before it."""
        right, up, forward = self.seen_from(point)
        wide, high = math.tan(math.radians(HALF_WIDTH)), math.tan(math.radians(HALF_HEIGHT))
        return forward > 0.05 and abs(right) <= wide * forward and abs(up) <= high * forward


@dataclass(frozen=True)
class Scene:
    """A room.

    Attributes:
        size: width, depth, height.
    """

    size: Vector
    things: tuple[Thing, ...]
    cameras: tuple[Camera, ...]

    @cached_property
    def named(self) -> Mapping[str, Thing]:
        return {thing.name: thing for thing in self.things}

    def visible(self, camera: int, name: str) -> float:
        """What share of a thing's surface a camera sees, by its points."""
        eye, thing = self.cameras[camera], self.named[name]
        return sum(
            share
            for point, share in thing.points(eye.place)
            if eye.in_view(point) and not any(other.blocks(eye.place, point) for other in self.things)
        )

    def state(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {
            "size": list(self.size),
            "things": [[t.kind, t.colour, list(t.centre), list(t.size)] for t in self.things],
            "cameras": [[list(c.place), c.yaw, c.pitch] for c in self.cameras],
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Scene:
        """The scene that `state` gave.

        Raises:
            KeyError, ValueError, TypeError: it is no scene.
        """
        things = tuple(Thing(k, c, _vector(at), _vector(size)) for k, c, at, size in state["things"])
        cameras = tuple(Camera(_vector(at), int(yaw), int(pitch)) for at, yaw, pitch in state["cameras"])
        return cls(_vector(state["size"]), things, cameras)

    def text(self, cameras: Sequence[int] = ()) -> str:
        """The scene as text, with some of its cameras."""
        lines = [
            f"A room is {self.size[0]:.2f} m wide (x), {self.size[1]:.2f} m deep (y) and {self.size[2]:.2f} m high (z, up). "
            "Things in it are boxes along its axes; given are the middle (x, y, z) and the size in x, y and z, in metres:"
        ]
        lines += [f"- {t.name}: middle {_shown(t.centre)}, size {_shown(t.size)}" for t in self.things]
        if cameras:
            lines.append(
                f"Cameras see {HALF_WIDTH} degrees to each side and {HALF_HEIGHT} degrees up and down. A yaw of 0 looks along "
                "x, of 90 along y; a positive pitch looks up:"
            )
        for number, i in enumerate(cameras, 1):
            eye = self.cameras[i]
            which = "the camera" if len(cameras) == 1 else f"camera {number}"
            lines.append(f"- {which}: at {_shown(eye.place)}, yaw {eye.yaw}, pitch {eye.pitch}")
        return "\n".join(lines)


def _vector(values: Sequence[float]) -> Vector:
    x, y, z = map(float, values)
    return x, y, z


def _shown(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.2f}" for value in values) + ")"


def minus(a: Vector, b: Vector) -> Vector:
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


def gap(a: Thing, b: Thing) -> float:
    """Distance between the nearest points of two boxes."""
    return math.hypot(
        *(max(l2 - h1, l1 - h2, 0.0) for l1, h1, l2, h2 in zip(a.low, a.high, b.low, b.high, strict=True))
    )


def reach(place: Vector, thing: Thing) -> float:
    """Distance from a point to the nearest point of a box."""
    return math.hypot(*(max(low - p, p - high, 0.0) for p, low, high in zip(place, thing.low, thing.high, strict=True)))


def _metres(value: float) -> float:
    return round(value, 2)


def room(rng: random.Random, *, least: int = 5, most: int = 9) -> Scene:
    """A room with things that stand apart on its floor, and two cameras that look into it, the second moved from the first."""
    size = (_metres(rng.uniform(4, 8)), _metres(rng.uniform(4, 8)), _metres(rng.uniform(2.4, 3.2)))
    # Some kinds come several times, so that there is something to count.
    favoured = rng.sample(list(KINDS), 2)
    things: list[Thing] = []
    wanted = rng.randint(least, most)
    for _ in range(200):
        if len(things) == wanted:
            break
        kind, colour = rng.choice(tuple(KINDS) if rng.random() < 0.5 else favoured), rng.choice(COLOURS)
        if any(thing.name == f"{colour} {kind}" for thing in things):
            continue
        wide, deep, high = (_metres(rng.uniform(*range_)) for range_ in KINDS[kind])
        if rng.random() < 0.5:
            wide, deep = deep, wide
        x, y = (
            _metres(rng.uniform(s / 2 + 0.05, whole - s / 2 - 0.05)) for s, whole in ((wide, size[0]), (deep, size[1]))
        )
        thing = Thing(kind, colour, (x, y, _metres(high / 2)), (wide, deep, high))
        if all(gap(thing, other) >= 0.15 for other in things):
            things.append(thing)
    cameras: list[Camera] = []
    while len(cameras) < 2:
        if not cameras:
            place = (rng.uniform(0.3, size[0] - 0.3), rng.uniform(0.3, size[1] - 0.3), rng.uniform(1.1, 2.0))
            towards = (size[0] / 2 - place[0], size[1] / 2 - place[1])
            yaw, pitch = math.degrees(math.atan2(towards[1], towards[0])) + rng.uniform(-25, 25), rng.uniform(-25, 0)
        else:
            # Mostly along some axes alone: a movement is named by its directions.
            first = cameras[0]
            moved = [rng.choice((0.0, 0.0, -1.0, 1.0)) * rng.uniform(0.5, 1.6) for _ in range(3)]
            place = tuple(
                p + sum(m * axis[i] for m, axis in zip(moved, first.axes, strict=True))
                for i, p in enumerate(first.place)
            )  # type: ignore[assignment]
            yaw = first.yaw + rng.choice((0, 0, -1, 1)) * rng.uniform(12, 60)
            pitch = first.pitch + rng.choice((0, 0, -1, 1)) * rng.uniform(10, 25)
        at = (_metres(place[0]), _metres(place[1]), _metres(place[2]))
        inside = all(0.1 <= p <= whole - 0.1 for p, whole in zip(at, size, strict=True))
        if inside and abs(pitch) <= 45 and all(reach(at, thing) >= 0.3 for thing in things):
            cameras.append(Camera(at, round(yaw) % 360, round(pitch)))
        elif rng.random() < 0.02:
            cameras.clear()  # the first one stands where hardly any second fits
    return Scene(size, tuple(things), tuple(cameras))
