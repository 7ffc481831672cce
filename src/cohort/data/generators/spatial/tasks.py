"""The 16 kinds of questions: who is asked about, whether a question is valid, and its answer.

A question whose answer hangs on a hair is invalid: what is compared differs clearly, or is clearly equal. The geometry is ours;
the kinds and the checks are those of arXiv:2604.14144.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cohort.data.generators.spatial.scene import COLOURS, KINDS, Scene, Thing, gap, minus, reach


class Invalid(ValueError):
    """A question that has no answer; the message says why."""


Names = tuple[str, ...]
# Share of a thing's surface that a camera must see, for the thing to be in its picture.
SEEN = 0.08


@dataclass(frozen=True)
class SpatialTask:
    """A kind of question.

    Attributes:
        views: cameras that it is about: none (the room), one picture, or two.
        takes: how many things it names, from and to; for "object_counting" how many kinds of things.
        text: the question; {0}, {1} ... are the things.
        form: of the answer.
        answer: of a scene and the names of the things; raises Invalid.
    """

    views: int
    takes: tuple[int, int]
    text: Callable[[Names], str]
    form: str
    answer: Callable[[Scene, Names], str]


def directed(amounts: Sequence[tuple[float, str, str]], *, sure: float, none: float) -> str:
    """The directions of some amounts, as "left, up": those above `sure`; raises Invalid for one between `none` and `sure`.

    Args:
        amounts: of each axis, with its name where it is positive, and where it is negative.
    """
    found = []
    for amount, positive, negative in amounts:
        if none < abs(amount) < sure:
            raise Invalid(f"{positive} or {negative} cannot be told: it is {abs(amount):.2f} only")
        if abs(amount) >= sure:
            found.append(positive if amount > 0 else negative)
    if not found:
        raise Invalid("there is no difference in any direction")
    return ", ".join(found)


def compared(difference: float, larger: str, smaller: str, same: str | None, *, sure: float, none: float) -> str:
    """Which of two is larger; `same` for differences up to `none`; raises Invalid between `none` and `sure`."""
    if abs(difference) >= sure:
        return larger if difference > 0 else smaller
    if same is None or abs(difference) > none:
        raise Invalid(f"they differ by {abs(difference):.2f} only")
    return same


def _seen(scene: Scene, camera: int, name: str) -> Thing:
    if scene.visible(camera, name) < SEEN:
        raise Invalid(f"the {name} is not seen by camera {camera + 1}, or hardly")
    return scene.named[name]


def _metres(value: float) -> str:
    if value < 0.2:
        raise Invalid(f"the distance of {value:.2f} m is too small to be measured")
    return f"{value:.2f}"


# The room -------------------------------------------------------------------------------------------------------------


def _count(scene: Scene, names: Names) -> str:
    return str(sum(thing.kind == names[0] for thing in scene.things))


def _size(scene: Scene, names: Names) -> str:
    return str(round(100 * max(scene.named[names[0]].size)))


def _distance(scene: Scene, names: Names) -> str:
    return _metres(gap(scene.named[names[0]], scene.named[names[1]]))


def _nearest(scene: Scene, names: Names) -> str:
    first, *others = names
    far = sorted((gap(scene.named[first], scene.named[name]), name) for name in others)
    if far[1][0] - far[0][0] < 0.15:
        raise Invalid(f"the {far[0][1]} and the {far[1][1]} are about equally far")
    return far[0][1]


def _direction(scene: Scene, names: Names) -> str:
    """Where the third is for who stands at the first and looks at the second; the axes are those of the floor."""
    stand, look, asked = (scene.named[name].centre for name in names)
    ahead, to = minus(look, stand), minus(asked, stand)
    long, far = math.hypot(*ahead[:2]), math.hypot(*to[:2])
    if min(long, far) < 0.4:
        raise Invalid("two of them stand in the same place")
    front = (ahead[0] * to[0] + ahead[1] * to[1]) / (long * far)
    left = (ahead[0] * to[1] - ahead[1] * to[0]) / (long * far)
    return directed([(front, "front", "back"), (left, "left", "right")], sure=0.26, none=0.09)


def _area(scene: Scene, names: Names) -> str:
    return f"{scene.size[0] * scene.size[1]:.2f}"


# One picture ----------------------------------------------------------------------------------------------------------


def _from_camera(scene: Scene, names: Names) -> str:
    return _metres(reach(scene.cameras[0].place, _seen(scene, 0, names[0])))


def _depths(scene: Scene, names: Names) -> str:
    first, second = (scene.cameras[0].seen_from(_seen(scene, 0, name).centre)[2] for name in names)
    return compared(second - first, names[0], names[1], "same", sure=0.2, none=0.05)


def _beside(scene: Scene, names: Names) -> str:
    eye = scene.cameras[0]
    first, second = (eye.seen_from(_seen(scene, 0, name).centre) for name in names)
    right, up, far = minus(first, second)
    return directed([(right, "right", "left"), (up, "above", "below"), (far, "behind", "front")], sure=0.3, none=0.1)


# Two pictures ---------------------------------------------------------------------------------------------------------


def _moved(scene: Scene, names: Names) -> str:
    right, up, ahead = scene.cameras[0].seen_from(scene.cameras[1].place)
    return directed([(ahead, "forward", "backward"), (right, "right", "left"), (up, "up", "down")], sure=0.4, none=0.15)


def _turned(scene: Scene, names: Names) -> str:
    first, second = scene.cameras
    yaw = (second.yaw - first.yaw + 180) % 360 - 180
    return directed([(yaw, "left", "right"), (second.pitch - first.pitch, "up", "down")], sure=10, none=3)


def _apart(scene: Scene, names: Names) -> str:
    return _metres(math.dist(scene.cameras[0].place, scene.cameras[1].place))


def _higher(scene: Scene, names: Names) -> str:
    first, second = (eye.place[2] for eye in scene.cameras)
    return compared(first - second, "first", "second", "same level", sure=0.15, none=0.03)


def _more_visible(scene: Scene, names: Names) -> str:
    first, second = scene.visible(0, names[0]), scene.visible(1, names[0])
    if not first and not second:
        return "neither"
    answer = compared(first - second, "first", "second", "same", sure=0.06, none=0.01)
    if answer != "same" and max(first, second) < 1.3 * min(first, second):
        raise Invalid(f"about as much of the {names[0]} is seen by both cameras")
    return answer


def _from_second(scene: Scene, names: Names) -> str:
    right, up, ahead = scene.cameras[1].seen_from(_seen(scene, 0, names[0]).centre)
    return directed([(ahead, "front", "back"), (right, "right", "left"), (up, "above", "below")], sure=0.4, none=0.15)


def _nearer(scene: Scene, names: Names) -> str:
    first, second = (reach(eye.place, _seen(scene, i, names[0])) for i, eye in enumerate(scene.cameras))
    return compared(second - first, "first", "second", None, sure=0.3, none=0.0)


_METRES = "a number of metres"
_SIDES = "with commas between them"


def _fixed(text: str) -> Callable[[Names], str]:
    return lambda names: text.format(*names)


TASKS: dict[str, SpatialTask] = {
    "object_counting": SpatialTask(0, (1, 1), _fixed("How many {0}s are in the room?"), "a number", _count),
    "object_size": SpatialTask(
        0, (1, 1), _fixed("How long is the longest edge of the {0}?"), "a number of centimetres", _size
    ),
    "absolute_distance": SpatialTask(
        0, (2, 2), _fixed("How far is the {0} from the {1}, between their nearest points?"), _METRES, _distance
    ),
    "relative_distance": SpatialTask(
        0,
        (3, 5),
        lambda names: (
            f"Which of these is nearest to the {names[0]}, by nearest points: the {', the '.join(names[1:])}?"
        ),
        "the name of the thing",
        _nearest,
    ),
    "relative_direction": SpatialTask(
        0,
        (3, 3),
        _fixed("Who stands at the {0} and looks at the {1}: on which sides is the {2}, by their middles?"),
        f"front or back, left or right, or both, {_SIDES}",
        _direction,
    ),
    "room_size": SpatialTask(
        0, (0, 0), _fixed("How large is the floor of the room?"), "a number of square metres", _area
    ),
    "distance_cam_obj": SpatialTask(
        1, (1, 1), _fixed("How far is the camera from the nearest point of the {0}?"), _METRES, _from_camera
    ),
    "depth_order_obj_obj": SpatialTask(
        1,
        (2, 2),
        _fixed(
            "Which is nearer to the camera, in the direction in which it looks: the middle of the {0} or that of the {1}?"
        ),
        "the name of the thing, or same",
        _depths,
    ),
    "direction_obj_obj": SpatialTask(
        1,
        (2, 2),
        _fixed("Seen from the camera, where is the middle of the {0} relative to that of the {1}?"),
        f"those that hold of left, right, above, below, front (nearer) and behind, {_SIDES}",
        _beside,
    ),
    "motion_camera": SpatialTask(
        2,
        (0, 0),
        _fixed("In which directions, as the first camera looks, must it move to be where the second one is?"),
        f"those that hold of forward, backward, left, right, up and down, {_SIDES}",
        _moved,
    ),
    "rotation_camera": SpatialTask(
        2,
        (0, 0),
        _fixed("In which directions must the first camera turn to look as the second one does?"),
        f"those that hold of left, right, up and down, {_SIDES}",
        _turned,
    ),
    "distance_cam_cam": SpatialTask(2, (0, 0), _fixed("How far are the two cameras apart?"), _METRES, _apart),
    "elevation_cam_cam": SpatialTask(
        2, (0, 0), _fixed("Which camera is higher?"), "first, second or same level", _higher
    ),
    "visibility_compare": SpatialTask(
        2,
        (1, 1),
        _fixed("Which camera sees more of the surface of the {0}, behind nothing else?"),
        "first, second, same or neither",
        _more_visible,
    ),
    "position_cam_obj": SpatialTask(
        2,
        (1, 1),
        _fixed("The first camera sees the {0}. Where is its middle for the second camera, as that looks?"),
        f"those that hold of front, back, left, right, above and below, {_SIDES}",
        _from_second,
    ),
    "distance_compare": SpatialTask(
        2, (1, 1), _fixed("Which camera is nearer to the nearest point of the {0}?"), "first or second", _nearer
    ),
}


def check(scene: Scene, task: str, names: Names) -> None:
    """The things that a question names exist, differ, and are as many as it takes.

    Raises:
        Invalid: they do not; the message says why.
    """
    least, most = TASKS[task].takes
    if not least <= len(names) <= most:
        takes = str(least) if least == most else f"{least} to {most}"
        raise Invalid(f"a question of {task} names {takes} things, not {len(names)}")
    if len(set(names)) < len(names):
        raise Invalid("it names a thing twice")
    for name in names:
        if task == "object_counting":
            if name not in KINDS:
                raise Invalid(f"{name} is no kind of thing")
        elif name not in scene.named:
            many = sum(thing.kind == name for thing in scene.things)
            raise Invalid(f"there are {many} {name}s: say which" if many > 1 else f"there is no {name} in the scene")


def answer(scene: Scene, task: str, names: Names) -> str:
    """The answer of a question.

    Raises:
        Invalid: it has none; the message says why.
    """
    check(scene, task, names)
    return TASKS[task].answer(scene, names)


def entities(scene: Scene, task: str, question: str) -> Names:
    """The things that a free text names, in its order: by their whole names, or by kind where there is one of that kind.

    A kind that several things have, and a colour with a kind that nothing has, are returned as they stand: `check` refuses
    them.
    """
    text = question.lower()
    found: list[str] = []
    for match in re.finditer(rf"\b(?:({'|'.join(COLOURS)})\s+)?({'|'.join(KINDS)})s?\b", text):
        colour, kind = match.groups()
        own = [thing.name for thing in scene.things if thing.kind == kind]
        name = (
            kind if task == "object_counting" else f"{colour} {kind}" if colour else own[0] if len(own) == 1 else kind
        )
        if name not in found:
            found.append(name)
    return tuple(found)


def feasible(scene: Scene, views: int | None = None) -> list[str]:
    """Tasks that a scene has things for; of one number of views, if given."""
    kinds = {thing.kind for thing in scene.things}
    many = {task: len(kinds) if task == "object_counting" else len(scene.things) for task in TASKS}
    return [
        name
        for name, task in TASKS.items()
        if views in (None, task.views) and many[name] >= task.takes[0] and len(scene.cameras) >= task.views
    ]
