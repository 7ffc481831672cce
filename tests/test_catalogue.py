"""The list of methods is that of the recipes, and comes without what recipes import."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cohort import catalogue, registry


def test_the_index_is_up_to_date():
    assert catalogue.INDEX.read_text(encoding="utf-8") == catalogue.index(), "run python docs/generate.py"


def test_a_recipe_is_about_a_screen():
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in catalogue.HERE.glob("*.py")}
    assert len(lengths) > 80
    assert {name: length for name, length in lengths.items() if length > 140} == {}


def test_a_recipe_that_is_not_in_the_index_is_asked(tmp_path, monkeypatch):
    rows = catalogue.overview()
    assert [row["name"] for row in rows] == list(registry.names())
    monkeypatch.setattr(catalogue, "INDEX", tmp_path / "none.json")
    assert catalogue.overview() == rows


@pytest.mark.parametrize("arguments", [["methods"], ["--help"], ["train", "--help"], ["--version"]])
def test_lists_and_help_import_neither_torch_nor_transformers(arguments):
    code = (
        "import sys\nfrom cohort.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'transformers', 'numpy', 'pyarrow', 'datasets'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
