"""The command where it is run: pipes that close, narrow and plain terminals, machines without a home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import run

SUMS = '{"prompt": "1+1=", "answer": "2"}\n{"prompt": "1+2=", "answer": "3"}\n'
TINY = ["--steps", "1", "--prompts-per-step", "2", "--group-size", "2", "--max-new-tokens", "4", "--device", "cpu"]


def command(*arguments, env=None, cwd=None, **options):
    """The finished process, its output as bytes."""
    return subprocess.run(
        [os.fsencode(sys.executable), b"-m", b"cohort.cli", *map(os.fsencode, arguments)],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        capture_output=True,
        timeout=120,
        **options,
    )


@pytest.mark.parametrize(
    "env",
    [
        {"COLUMNS": "20"},
        {"COLUMNS": "1"},
        {"NO_COLOR": "1"},
        {"TERM": "dumb"},
        {"FORCE_COLOR": "1"},
        {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"HOME": "/nonexistent"},
        {"HOME": ""},
    ],
)
def test_a_list_is_printed_wherever_it_is_asked_for(env):
    done = command("methods", env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout) > 1000


@pytest.mark.parametrize("arguments", [["methods"], ["methods", "--json"], ["train", "--help"]])
def test_whoever_reads_may_stop_reading(arguments):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "cohort.cli", *arguments], stdout=write, stderr=subprocess.PIPE, timeout=60, text=True
    )
    os.close(write)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_bytes_that_are_no_text_are_refused():
    done = command("explain", b"\xff")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"cohort: ")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("arguments", [["train", b"da\xffpo"], ["train", "--out", b"\xff"]])
def test_bytes_that_are_no_text_are_refused_where_more_is_loaded(arguments):
    status, _, err = run(*map(os.fsdecode, arguments))
    assert status == 2
    assert err.startswith("cohort: ")
    assert err.count("\n") == 1


def test_a_run_prints_its_own_lines_and_none_of_the_libraries(tmp_path: Path, model_folder):
    (tmp_path / "sums.jsonl").write_text(SUMS)
    data = ["--model", str(model_folder("plain")), "--data", "sums.jsonl", "--reward", "number"]
    env = dict.fromkeys(("HOME", "COLUMNS"), "")
    done = command("train", "grpo", *data, *TINY, "--lora", "2", "--out", "run", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    said = done.stderr.decode() + done.stdout.decode()
    for noise in ("Warning", "it/s", "%|", "shards", "Loading weights", "deprecated"):
        assert noise not in said
    assert "step 1/1" in said
    assert "what next" not in said
    done = command("merge", "run/final", "--out", "whole", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"the model: whole\n")


def test_a_cache_that_cannot_be_written_to_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    done = command("train", "--steps", "1", env={"COHORT_CACHE": str(tmp_path / "file" / "cache")}, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert b"file" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["file/run", "link", "loop/x", "a" * 300])
@pytest.mark.parametrize(
    "arguments", [["sft", "--model", "x", "--data", "y"], ["merge", "x"], ["compare", "grpo", "dapo"]]
)
def test_places_where_no_folder_can_be_are_refused(tmp_path: Path, monkeypatch, capsys, arguments, name):
    from cohort.cli import main

    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cohort", *arguments, "--out", name])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "--out" in capsys.readouterr().err
