"""Questions about rooms: as text, or as pictures of them."""

from __future__ import annotations

import random
from functools import partial
from typing import Annotated

from cohort.data.generators.spatial.scene import KINDS, Scene, room
from cohort.data.generators.spatial.tasks import TASKS, Invalid, Names, answer, feasible
from cohort.data.generators.spatial.view import corners, picture
from cohort.data.generators.task import ANSWER, Task
from cohort.errors import UsageError

# Draws of names in a scene, before another one is drawn.
_TRIES = 12
# Answers that are easily guessed: kept this often.
_KEPT = 0.15
TRIVIAL = {
    "object_counting": ("0", "1"),
    "depth_order_obj_obj": ("same",),
    "elevation_cam_cam": ("same level",),
    "visibility_compare": ("same", "neither"),
}


def make(
    rng: random.Random,
    *,
    task: Annotated[str | None, "kind of question; all by default", tuple(TASKS)] = None,
    views: Annotated[int | None, "questions about the room (0), one picture (1) or two (2); all by default"] = None,
) -> Task:
    """Space: 16 kinds of questions about rooms of boxes and cameras, as distances, directions and what is seen"""
    kinds = [name for name in TASKS if task in (None, name) and views in (None, TASKS[name].views)]
    if not kinds:
        raise UsageError(f"--views {views}: there are no such questions{f' of {task}' if task else ''}: give 0, 1 or 2")
    kind = rng.choice(kinds)
    while True:
        scene = room(rng)
        if kind not in feasible(scene):
            continue
        for _ in range(_TRIES):
            names = _names(rng, scene, kind)
            try:
                found = answer(scene, kind, names)
            except Invalid:
                continue
            if found in TRIVIAL.get(kind, ()) and rng.random() > _KEPT:
                continue
            return asked(scene, kind, names, found)


def _names(rng: random.Random, scene: Scene, kind: str) -> Names:
    least, most = TASKS[kind].takes
    pool = list(KINDS) if kind == "object_counting" else [thing.name for thing in scene.things]
    return tuple(rng.sample(pool, min(rng.randint(least, most), len(pool))))


def asked(scene: Scene, kind: str, names: Names, found: str) -> Task:
    """The task of a question that has an answer."""
    what = TASKS[kind]
    cameras = tuple(range(what.views))
    eyes = [scene.cameras[i] for i in cameras] or corners(scene)
    seen = {0: "The pictures show a room from its corners.", 1: "The picture shows a room."}
    return Task(
        rules="",
        scene=scene.text(cameras),
        seen=seen.get(
            what.views, "The pictures show a room, the first one from the first camera, the second from the second."
        ),
        question=f"{what.text(names)} Answer with {what.form}. {ANSWER}",
        answer=found,
        columns={"task": kind, "views": what.views, "names": list(names), "state": scene.state()},
        pictures=tuple(partial(picture, scene, eye) for eye in eyes),
        several=True,
    )
