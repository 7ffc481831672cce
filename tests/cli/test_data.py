"""`cohort data`: rows that a run trains on, never over a file of the user's."""

from __future__ import annotations

import json

import pytest

from cohort.data.generators.table import GENERATORS
from tests.cli.command import run, write


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_generators_are_listed():
    status, out, err = run("data")
    assert (status, err) == (0, "")
    assert all(name in out for name in GENERATORS)
    assert run("data", "--list") == (status, out, err)
    status, out, _ = run("data", "--json")
    assert [row["generator"] for row in json.loads(out)] == list(GENERATORS)
    assert all(row["what"] and row["paper"] for row in json.loads(out))


def test_the_same_seed_gives_the_same_bytes_and_fewer_rows_are_the_first_ones(tmp_path):
    texts = []
    for i, arguments in enumerate((("--rows", 9), ("--rows", 9), ("--rows", 4), ("--rows", 9, "--seed", 1))):
        out = tmp_path / f"{i}.jsonl"
        status, said, err = run("data", "langtons-ant", "--out", out, *arguments)
        assert (status, said) == (0, "")
        assert err == f"{arguments[1]} rows: {out}\n"
        texts.append(out.read_text())
    assert texts[0] == texts[1]
    assert texts[0].startswith(texts[2])
    assert texts[0] != texts[3]
    assert not (tmp_path / "0_images").exists()


def test_a_file_is_replaced_only_when_asked(tmp_path):
    out = write(tmp_path / "mine.jsonl", [{"prompt": "1+1=", "answer": "2"}])
    before = out.read_text()
    status, _, err = run("data", "life", "--out", out, "--rows", 3)
    assert status == 2
    assert "the file exists: name another one, or add --replace" in err
    assert out.read_text() == before
    assert run("data", "life", "--out", out, "--rows", 3, "--replace")[0] == 0
    assert len(rows(out)) == 3


def test_pictures_stand_beside_the_file_and_those_of_a_replaced_one_go(tmp_path):
    from PIL import Image

    out, folder = tmp_path / "x.jsonl", tmp_path / "x_images"
    folder.mkdir()
    (folder / "mine.png").write_bytes(b"mine")
    assert run("data", "sokoban", "--out", out, "--rows", 3, "--form", "both")[0] == 0
    found = rows(out)
    for row in found:
        with Image.open(tmp_path / row["image"]) as picture:
            assert picture.size > (100, 100)
        assert row["scene"] in row["prompt"]
    first = {row["image"] for row in found}
    assert run("data", "sokoban", "--out", out, "--rows", 2, "--form", "picture", "--seed", 5, "--replace")[0] == 0
    found = rows(out)
    assert not any(row["scene"] in row["prompt"] for row in found)
    assert {f"x_images/{path.name}" for path in folder.iterdir()} == {row["image"] for row in found} | {
        "x_images/mine.png"
    }
    assert not first & {row["image"] for row in found}
    assert run("data", "sokoban", "--out", out, "--rows", 2, "--replace")[0] == 0
    assert [path.name for path in folder.iterdir()] == ["mine.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("langtons-ant", "--out", "x.csv"), "name a file .jsonl"),
        (("langtons-ant", "--out", "no/where/x.jsonl"), "name a file in a folder that exists"),
        (("langtons-ant", "--out", "x.jsonl", "--form", "sound"), "--form sound: expected one of text, picture, both"),
        (("life", "--out", "x.jsonl", "--task", "next_"), "--task next_: expected one of count, next, changes, rest"),
        (
            ("life", "--out", "x.jsonl", "--task", "count", "--plot-level", "easy", "--rows", "600"),
            "different rows of life --plot-level easy --task count: ask for fewer, or leave options out",
        ),
    ],
)
def test_what_cannot_be_made_is_refused(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run("data", *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_pictures_without_pillow_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    status, _, err = run("data", "life", "--out", tmp_path / "x.jsonl", "--form", "picture")
    assert status == 2
    assert "pip install 'cohort-rl[pictures]'" in err
    assert list(tmp_path.iterdir()) == []
