"""`cohort methods` and `cohort explain`: what is there."""

from __future__ import annotations

import json

import cohort
from cohort import registry
from tests.cli.command import run


def test_version():
    assert run("--version") == (0, f"cohort {cohort.__version__}\n", "")


def test_without_a_command_it_shows_help():
    _, out, err = run()
    for command in ("train", "eval", "score", "sft", "methods", "explain", "merge"):
        assert command in out + err


def test_methods_lists_every_method():
    status, out, err = run("methods")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    for name in registry.names():
        paper = registry.recipe(name).paper.replace("arXiv:", "")
        assert any(line.split()[:1] == [name] and paper in line for line in lines), name


def test_methods_as_json():
    status, out, err = run("methods", "--json")
    assert (status, err) == (0, "")
    rows = json.loads(out)
    assert [row["name"] for row in rows] == list(registry.names())
    assert all(set(row) == {"name", "paper", "axes", "confidence", "idea", "requires"} for row in rows)
    assert all(row["paper"] and row["axes"] and row["confidence"] and row["idea"] for row in rows)


def test_explain_says_what_a_composition_does_and_where_it_comes_from():
    status, out, err = run("explain", "dapo+gdpo")
    assert (status, err) == (0, "")
    for part in ("dapo+gdpo", "## dapo", "## gdpo", "arXiv:2503.14476", "arXiv:2601.05242", "## What it costs"):
        assert part in out
    # Axis by axis, each with the method that fills it.
    for stage, source in (
        ("ppo_clip", "dapo"),
        ("decoupled", "gdpo"),
        ("mixed_accuracy", "dapo"),
        ("adamw", "default"),
    ):
        (line,) = [line for line in out.splitlines() if line.strip().startswith(stage)]
        assert line.endswith(f"[{source}]")
    assert "high=0.28" in out


def test_explain_refuses_an_unknown_method_and_names_near_ones():
    status, out, err = run("explain", "dapoo")
    assert (status, out) == (2, "")
    assert "there is no method 'dapoo'; did you mean 'dapo'" in err
