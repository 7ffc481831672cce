"""Puzzles of pictures: every solution is right, in characters and in pixels."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from PIL import Image

from cohort.data.generators import puzzles, scenery
from cohort.data.generators.table import GENERATORS
from cohort.data.generators.writing import write
from cohort.errors import UsageError
from tests.data.generators import verify_puzzles

PUZZLES = GENERATORS["puzzles"]


def rows_of(many, seed=0, **options):
    return [task.row("text") for task in PUZZLES.tasks(many, seed, options)]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of pictures of several sizes and modes, one in a folder of its own."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "more").mkdir()
    noise = Image.effect_noise((300, 200), 90)
    noise.save(folder / "grey.png")
    Image.merge("RGB", (noise, noise.rotate(90), noise.transpose(Image.Transpose.FLIP_TOP_BOTTOM))).save(
        folder / "a.jpg"
    )
    Image.effect_mandelbrot((90, 160), (-2, -1.5, 1, 1.5), 40).save(folder / "more" / "set.PNG")
    (folder / "notes.txt").write_text("mine")
    return folder


@pytest.mark.parametrize("tiles", ["2x2", pytest.param("4x4", marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("many", [60, pytest.param(1000, marks=pytest.mark.exhaustive)])
def test_no_solution_is_wrong(many, tiles):
    rows = rows_of(many, seed=many, tiles=tiles)
    assert [why for row in rows if (why := verify_puzzles.wrong(row))] == []
    assert {row["task"] for row in rows} == {"jigsaw", "rotation", "patch"}
    for task, answers in (("rotation", 4), ("patch", 4), ("jigsaw", 12)):
        found = Counter(row["answer"] for row in rows if row["task"] == task)
        assert len(found) >= answers - (many < 100) * 2
        assert max(found.values()) < 0.6 * found.total()


def test_a_jigsaw_has_one_solution():
    rows = rows_of(15, task="jigsaw") + rows_of(2, task="jigsaw", tiles="2x3")
    assert all(map(verify_puzzles.solvable, rows))
    assert not any(row["answer"] == "1,2,3,4" for row in rows)


def test_the_verifier_finds_wrong_solutions():
    other = {"jigsaw": "1,2,3,4", "rotation": "45", "patch": "E"}
    assert all(verify_puzzles.wrong({**row, "answer": other[row["task"]]}) for row in rows_of(20))


@pytest.mark.parametrize("many", [12, pytest.param(1000, marks=pytest.mark.exhaustive)])
def test_pictures_show_the_puzzles_of_their_rows(many, tmp_path):
    out = tmp_path / "x.jsonl"
    write(out, PUZZLES.tasks(many, 3, {"tiles": "2x3"}), "picture")
    for row in map(json.loads, out.read_text().splitlines()):
        with Image.open(tmp_path / row["image"]) as picture:
            size = (240, 240)
            original = verify_puzzles.landscape_of(row).image(*size)
            assert verify_puzzles.wrong_picture(row, picture, original) is None
        assert row["scene"] not in row["prompt"]


def test_puzzles_of_ones_own_pictures(photographs, tmp_path):
    out = tmp_path / "x.jsonl"
    write(out, PUZZLES.tasks(24, 0, {"folder": str(photographs)}), "both")
    paths = {path.name: path for path in scenery.pictures_in(str(photographs))}
    assert set(paths) == {"a.jpg", "grey.png", "set.PNG"}
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len({row["state"]["source"][0] for row in rows}) == 3
    for row in rows:
        assert verify_puzzles.wrong(row) is None
        name, box = row["state"]["source"]
        with Image.open(tmp_path / row["image"]) as picture:
            original = scenery.Photograph(paths[name], tuple(box)).image(240, 240)
            assert verify_puzzles.wrong_picture(row, picture, original) is None
        with Image.open(paths[name]) as whole:
            assert 0 <= box[0] < box[2] <= whole.width
            assert 0 <= box[1] < box[3] <= whole.height


def test_folders_that_make_no_puzzles_are_refused(tmp_path):
    with pytest.raises(UsageError, match="there is no such folder"):
        rows_of(1, folder=str(tmp_path / "none"))
    with pytest.raises(UsageError, match="it holds no picture"):
        rows_of(1, folder=str(tmp_path))
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    scenery.pictures_in.cache_clear()
    with pytest.raises(UsageError, match="too uniform to make a jigsaw of: choose others, or fewer --tiles"):
        rows_of(1, folder=str(tmp_path), task="jigsaw")
    (tmp_path / "half.png").write_bytes(b"\x89PNG")
    (tmp_path / "red.png").unlink()
    scenery.pictures_in.cache_clear()
    with pytest.raises(UsageError, match=r"half\.png cannot be read"):
        rows_of(1, folder=str(tmp_path))


def test_a_turn_is_clockwise():
    assert puzzles.turned(["ab", "cd"], 90) == ["ca", "db"]
    assert puzzles.turned(["ab", "cd"], 270) == ["bd", "ac"]


def test_tiles_joined_are_the_picture():
    lines = ["abcdef", "ghijkl", "mnopqr", "stuvwx"]
    assert puzzles.joined(puzzles.cut(lines, 2, 3), 3) == lines
