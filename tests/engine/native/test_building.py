"""Compiling C code: what can be wrong with that."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import pytest

from cohort.engine.native import building

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and the compiler that is found without being named."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("COHORT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def source_of(folder: Path, text: str) -> Path:
    path = folder / "code.c"
    path.write_text(text)
    building._attempt.cache_clear()
    return path


def test_code_is_made_anew_when_it_changes(tmp_path: Path, empty: Path) -> None:
    for number in (1, 2):
        code = building.library(source_of(tmp_path, f"int number(void) {{ return {number}; }}"))
        assert code.number() == number
        assert len(list(empty.iterdir())) == number
    assert not (tmp_path / "code.o").exists()


def test_an_error_of_the_compiler_is_told_and_leaves_nothing(tmp_path: Path, empty: Path) -> None:
    source = source_of(tmp_path, "int number(void) { return x; }")
    for _ in range(2):
        with pytest.raises(building.Unavailable, match=r"gcc: .*error: .x. undeclared"):
            building.library(source)
    assert list(empty.iterdir()) == []


def test_clang_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "cc"
    other.write_text("#!/bin/sh\necho 'Debian clang version 14.0.6'\n")
    other.chmod(0o755)
    monkeypatch.setenv("CC", str(other))
    with pytest.raises(building.Unavailable, match=r"is clang.*install gcc"):
        building.library(source_of(tmp_path, "int number(void) { return 1; }"))


@pytest.mark.parametrize("asked", ["no-such-compiler", "false"])
def test_a_compiler_that_is_none(tmp_path: Path, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", asked)
    with pytest.raises(building.Unavailable, match=asked):
        building.library(source_of(tmp_path, "int number(void) { return 1; }"))


def test_the_compiler_of_the_environment_is_asked_with_its_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "gcc -DNUMBER=7")
    assert building.library(source_of(tmp_path, "int number(void) { return NUMBER; }")).number() == 7


def test_a_folder_that_cannot_be_written(tmp_path: Path, empty: Path) -> None:
    empty.write_text("a file")
    with pytest.raises(building.Unavailable, match="COHORT_CACHE names the folder"):
        building.library(source_of(tmp_path, "int number(void) { return 1; }"))


def test_what_was_compiled_elsewhere_is_not_loaded(
    tmp_path: Path, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(tmp_path, "int number(void) { return 1; }")
    assert isinstance(building.library(source), ctypes.CDLL)
    other = tmp_path / "cpuinfo"
    other.write_text("model name\t: another\nflags\t: sse2\n")
    monkeypatch.setattr(building, "PROCESSOR", other)
    building._attempt.cache_clear()
    building.library(source)
    assert len(list(empty.iterdir())) == 2
