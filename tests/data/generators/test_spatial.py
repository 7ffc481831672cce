"""Rooms: every answer is right, questions without a sure answer are refused, pictures show what the text says."""

from __future__ import annotations

import json
import random

import pytest
from PIL import Image

from cohort.data.generators.spatial.scene import Camera, Scene, Thing, gap, reach, room
from cohort.data.generators.spatial.tasks import TASKS, Invalid, answer, directed, entities, feasible
from cohort.data.generators.spatial.view import HEIGHT, WIDTH, back_to_front
from cohort.data.generators.table import GENERATORS
from cohort.data.generators.writing import write
from cohort.errors import UsageError
from tests.data.generators import verify_spatial

SPATIAL = GENERATORS["spatial"]


def rows_of(many, seed=0, **options):
    return [task.row("text") for task in SPATIAL.tasks(many, seed, options)]


@pytest.mark.parametrize("many", [64, pytest.param(1000, marks=pytest.mark.exhaustive)])
def test_no_answer_is_wrong(many):
    rows = rows_of(many, seed=many)
    found = [
        f"{row['task']}: {row['answer']}, but {why}\n{row['prompt']}"
        for row in rows
        if (why := verify_spatial.wrong(row))
    ]
    assert found == []
    for row in rows:
        scene = Scene.of(row["state"])
        assert scene.text(tuple(range(row["views"]))) == row["scene"]
        assert answer(scene, row["task"], tuple(row["names"])) == row["answer"]


@pytest.mark.parametrize("task", TASKS)
def test_every_kind_can_be_asked_for(task):
    (row,) = rows_of(1, task=task)
    assert (row["task"], row["views"]) == (task, TASKS[task].views)
    assert verify_spatial.wrong(row) is None


def test_there_are_six_kinds_about_rooms_three_about_a_picture_and_seven_about_two():
    assert [sum(task.views == views for task in TASKS.values()) for views in (0, 1, 2)] == [6, 3, 7]
    with pytest.raises(UsageError, match="there are no such questions"):
        rows_of(1, views=3)


def test_the_verifier_finds_wrong_answers():
    for row in rows_of(48, seed=3):
        said = row["answer"]
        other = f"{float(said) * 1.1 + 1:.2f}" if said[0].isdigit() else "left" if said != "left" else "right"
        if row["task"] in ("visibility_compare", "elevation_cam_cam", "distance_compare"):
            other = {"first": "second", "second": "first"}.get(said, "first")
        assert verify_spatial.wrong({**row, "answer": other}), row["task"]


@pytest.fixture(scope="module")
def scene():
    return room(random.Random(5))


def test_rooms_are_made_of_things_that_stand_apart(scene):
    # The middle is rounded to a centimetre.
    for a in scene.things:
        assert all(low >= -0.006 and high <= size for low, high, size in zip(a.low, a.high, scene.size, strict=True))
        assert all(gap(a, b) >= 0.15 - 1e-9 for b in scene.things if b is not a)
        assert all(reach(eye.place, a) >= 0.3 for eye in scene.cameras)
    assert Scene.of(json.loads(json.dumps(scene.state()))) == scene


def things(*places):
    names = (("red", "chair"), ("blue", "chair"), ("green", "table"))
    made = [Thing(kind, c, (x, y, 0.5), (0.4, 0.4, 1.0)) for (c, kind), (x, y) in zip(names, places, strict=True)]
    return Scene((6.0, 6.0, 3.0), tuple(made), (Camera((1.0, 3.0, 1.0), 0, 0), Camera((1.0, 3.02, 1.0), 0, 0)))


def test_questions_without_a_sure_answer_are_refused():
    made = things((3.0, 3.0), (4.0, 3.0), (3.0, 3.9))
    for task, names, why in (
        ("relative_distance", ("red chair", "blue chair", "green table"), "about equally far"),
        ("direction_obj_obj", ("blue chair", "red chair"), "the blue chair is not seen"),
        ("motion_camera", (), "no difference"),
        ("distance_cam_cam", (), "too small"),
        ("absolute_distance", ("red chair", "chair"), "there are 2 chairs: say which"),
        ("absolute_distance", ("red chair", "sofa"), "there is no sofa"),
        ("absolute_distance", ("red chair", "red chair"), "a thing twice"),
        ("absolute_distance", ("red chair",), "names 2 things, not 1"),
        ("relative_distance", ("red chair", "green table"), "names 3 to 5 things"),
        ("object_counting", ("house",), "no kind of thing"),
    ):
        with pytest.raises(Invalid, match=why):
            answer(made, task, names)
    assert answer(made, "elevation_cam_cam", ()) == "same level"
    assert answer(made, "visibility_compare", ("blue chair",)) == "neither"
    assert answer(made, "object_counting", ("chair",)) == "2"
    with pytest.raises(Invalid, match="cannot be told"):
        directed([(0.2, "left", "right")], sure=0.3, none=0.1)


def test_things_are_found_in_free_texts():
    made = things((3.0, 3.0), (4.0, 3.0), (3.0, 4.5))
    for task, text, names in (
        ("absolute_distance", "How far is the Red Chair from the table?", ("red chair", "green table")),
        ("absolute_distance", "How far are the chairs apart?", ("chair",)),
        ("absolute_distance", "From the pink chair to the blue sofa?", ("chair", "blue sofa")),
        ("object_counting", "How many red chairs are there?", ("chair",)),
        ("room_size", "How large is it?", ()),
    ):
        assert entities(made, task, text) == names
    for task in TASKS:
        names = ("chair",) if task == "object_counting" else tuple(made.named)[: TASKS[task].takes[0]]
        assert entities(made, task, TASKS[task].text(names)) == names


def test_feasible_kinds_have_things_to_name():
    assert feasible(things((3.0, 3.0), (4.0, 3.0), (3.0, 4.5))) == list(TASKS)
    bare = Scene((4.0, 4.0, 3.0), (), (Camera((1.0, 1.0, 1.0), 0, 0),))
    assert feasible(bare) == ["room_size"]
    assert feasible(bare, 1) == []


def test_pictures_come_for_each_camera_and_show_what_is_near_before_what_is_far(tmp_path):
    out = tmp_path / "x.jsonl"
    write(out, SPATIAL.tasks(6, 1, {}), "both")
    for row in map(json.loads, out.read_text().splitlines()):
        assert len(row["images"]) == (row["views"] or 4)
        for name in row["images"]:
            with Image.open(tmp_path / name) as picture:
                assert picture.size == (WIDTH, HEIGHT)
    made = things((3.0, 3.0), (4.0, 3.0), (3.0, 4.5))
    assert [t.name for t in back_to_front(made.cameras[0], made.things)][-1] == "red chair"


@pytest.mark.parametrize("many", [6, pytest.param(300, marks=pytest.mark.exhaustive)])
def test_what_the_text_says_is_seen_has_its_colour_in_the_picture(many, tmp_path):
    from cohort.data.generators.spatial.view import _RGB, picture

    for task in SPATIAL.tasks(many, 2, {"task": "depth_order_obj_obj"}):
        scene = Scene.of(task.columns["state"])
        colours = {tuple(c) for _, c in picture(scene, scene.cameras[0]).getcolors(WIDTH * HEIGHT)}
        for name in task.columns["names"]:
            own = _RGB[scene.named[name].colour]
            shades = {tuple(round(light * part) for part in own) for light in (0.65, 0.75, 0.85, 0.9, 1.0)}
            assert colours & shades
