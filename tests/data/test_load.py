"""Rows of a data set: from files, from Python, from the hub and from generators, and what is said of data that is none."""

from __future__ import annotations

import json
import re
import types

import datasets
import pandas
import pyarrow as pa
import pytest

from cohort.data.load import load_rows
from cohort.errors import UsageError

ROWS = [{"prompt": "1+1=", "answer": 2, "note": "a, b"}, {"prompt": "Ünïcode\n„quotes“", "answer": -3, "note": ""}]


def write(path, rows=ROWS):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "data.jsonl")
    assert load_rows("~/data.jsonl") == ROWS


# from Python --------------------------------------------------------------------------------------------------------


def test_rows_from_python_are_copied():
    given = ({"prompt": "a"}, types.MappingProxyType({"prompt": "b"}))
    rows = load_rows(given)
    assert rows == [{"prompt": "a"}, {"prompt": "b"}]
    rows[0]["prompt"] = "c"
    assert given[0] == {"prompt": "a"}
    assert load_rows({"prompt": str(i)} for i in range(2)) == [{"prompt": "0"}, {"prompt": "1"}]


TABLES = {
    "data frame": pandas.DataFrame(ROWS),
    "data frame with an index": pandas.DataFrame(ROWS, index=[7, 7]),
    "Arrow table": pa.Table.from_pylist(ROWS),
    "Arrow batch": pa.RecordBatch.from_pylist(ROWS),
    "data set": datasets.Dataset.from_list(ROWS),
    "stream": datasets.Dataset.from_list(ROWS).to_iterable_dataset(),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_give_their_rows(name):
    rows = load_rows(TABLES[name])
    assert rows == ROWS
    assert [type(value) for value in rows[0].values()] == [str, int, str]
    assert [row.place for row in rows] == ["row 1", "row 2"]


def test_what_is_missing_in_a_data_frame_is_none():
    frame = pandas.DataFrame({"prompt": ["a", "b"], "answer": ["1", None], "chat": [[{"role": "user"}], None]})
    assert load_rows(frame) == [
        {"prompt": "a", "answer": "1", "chat": [{"role": "user"}]},
        {"prompt": "b", "answer": None, "chat": None},
    ]
    assert load_rows(pandas.DataFrame({"prompt": ["a", "b"], "answer": [1.5, float("nan")]}))[1]["answer"] is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "the data given has no rows"),
        (pandas.DataFrame({"prompt": []}), "the data given has no rows"),
        ([{"prompt": "a"}, "b"], "data, row 2: expected a mapping of columns, found str"),
        ([["prompt", "a"]], "data, row 1: expected a mapping of columns, found list"),
        ([None], "data, row 1: expected a mapping of columns, found NoneType"),
        ((text for text in ["a"]), "data, row 1: expected a mapping of columns, found str"),
        ({"prompt": ["a", "b"]}, r"data: expected rows, found one dict \(of prompt\)"),
        (datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)), r"found one DatasetDict \(of train\): give one"),
        (7, "data: expected rows, a data frame, an Arrow table, or the name of a file, found 7"),
        (b"a.jsonl", "data: expected rows, a data frame"),
        ([{1: "a"}], "data, row 1: the names of columns must be texts, not 1"),
        (pandas.DataFrame([["a"]]), "data, row 1: the names of columns must be texts, not 0"),
        (pandas.DataFrame([["a", "b"]], columns=["x", "x"]), "data: there are several columns 'x'"),
        (pa.table([["a"], ["b"]], names=["x", "x"]), "data: there are several columns 'x'"),
        ([{"prompt": "a\ud800b"}], r"data, row 1: a text holds half a character \(\\ud800, a lone surrogate\)"),
        ([{"prompt": "a", "x": {"\udc00": 1}}], "data, row 1: a text holds half a character"),
    ],
)
def test_what_is_given_from_python_and_no_rows_is_named(given, message):
    with pytest.raises(UsageError, match=message):
        load_rows(given)


def test_values_that_are_nested_too_deep_are_refused():
    deep = "x"
    for _ in range(150):
        deep = [deep]
    with pytest.raises(UsageError, match="data, row 2: a value is nested more than 100 deep"):
        load_rows([{"prompt": "a"}, {"prompt": deep}])
    endless = []
    endless.append(endless)
    with pytest.raises(UsageError, match="nested more than 100 deep"):
        load_rows([{"prompt": endless}])


# errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["gone.jsonl", "gone.json", "gone.csv", "gone.tsv.gz", "gone.parquet", "no/such/folder/gone.JSONL", "~/gone.csv"],
)
def test_a_missing_file_is_named(name):
    with pytest.raises(UsageError, match=f"data: there is no file {re.escape(name)}"):
        load_rows(name)


@pytest.mark.parametrize(
    "name", ["./gone", "/no/such/folder", "no/such/folder", "gone/", "~/gone", "..", "gone.txt", "a b", ""]
)
def test_a_missing_folder_or_file_of_another_kind_is_not_looked_for_on_the_hub(name, tmp_path, monkeypatch, hub):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    for each in (name, tmp_path / "gone", "here/gone"):
        with pytest.raises(UsageError, match=r"data: (there is no such file or folder: |\.\. is a folder)"):
            load_rows(each)
    assert hub == []


def test_a_file_of_another_kind_and_a_folder_are_named_with_the_known_kinds(tmp_path):
    path = tmp_path / "data.txt"
    path.write_text("1\n")
    kinds = r"\(\.jsonl, \.json, \.csv, \.tsv, \.parquet\)"
    with pytest.raises(UsageError, match=rf"data\.txt is no file of a known kind {kinds}"):
        load_rows(path)
    with pytest.raises(UsageError, match=rf"is a folder: name a file in it {kinds}"):
        load_rows(tmp_path)
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(UsageError, match=r"a\.csv is a folder"):
        load_rows(tmp_path / "a.csv")


# procedural tasks --------------------------------------------------------------------------------------------------


def test_a_procedural_task_has_a_prompt_an_answer_and_what_its_verifier_needs():
    rows = load_rows("reasoning_gym:chain_sum?size=3&min_terms=2&max_terms=2&min_digits=1&max_digits=1&seed=5")
    assert len(rows) == 3
    for row in rows:
        assert row["prompt"] == row["question"]
        assert row["metadata"]["source_dataset"] == "chain_sum"
        first, sign, second = row["metadata"]["expression"].split()
        assert int(row["answer"]) == int(first) + int(second) * (1 if sign == "+" else -1)


def test_a_procedural_task_depends_on_its_seed_alone():
    def prompts(source, seed=0):
        return [row["prompt"] for row in load_rows(source, seed=seed)]

    own, other = "reasoning_gym:chain_sum?size=4&seed=7", "reasoning_gym:chain_sum?size=4"
    assert prompts(own) == prompts(own, seed=3) == prompts(other, seed=7)
    assert prompts(other, seed=1) != prompts(other, seed=2)


def test_a_procedural_task_has_500_rows_unless_asked_otherwise():
    assert len(load_rows("reasoning_gym:chain_sum")) == 500


@pytest.mark.parametrize(("written", "negative"), [("true", True), ("True", True), ("false", False), ("False", False)])
def test_options_are_read_as_what_they_look_like(written, negative):
    rows = load_rows(f"reasoning_gym:chain_sum?size=40&seed=1&allow_negation={written}")
    assert any(row["metadata"]["expression"].startswith("-") for row in rows) == negative


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("reasoning_gym:chain_sun", "reasoning-gym has no task 'chain_sun'; did you mean chain_sum"),
        ("reasoning_gym:zzzzzz", "reasoning-gym has no task 'zzzzzz'$"),
        ("reasoning_gym:", "reasoning-gym has no task ''$"),
        ("reasoning_gym:chain_sum?colour=red", "reasoning_gym:chain_sum: .*unexpected keyword argument 'colour'"),
        ("reasoning_gym:chain_sum?size=0", "reasoning_gym:chain_sum: size must be positive"),
        ("reasoning_gym:chain_sum?size=many", "reasoning_gym:chain_sum: "),
        ("reasoning_gym:chain_sum?min_terms=5&max_terms=2", "reasoning_gym:chain_sum: max_terms must be >= min_terms"),
    ],
)
def test_an_unknown_task_or_option_is_named(source, message):
    with pytest.raises(UsageError, match=message):
        load_rows(source)


# the hub -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """The hub, as a function that remembers what it was asked for."""
    asked = []

    def load_dataset(path, name=None, *, split=None, **options):
        asked.append((path, {"name": name, "split": split, **options}))
        if path == "some/thing":
            return iter([{"prompt": "a"}, {"prompt": "b"}])
        if path == "some/nothing":
            return iter([])
        raise FileNotFoundError(f"Couldn't find {path}\nand a long explanation")

    import datasets

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("some/thing", {"name": None, "split": "train"}),
        ("some/thing?split=test", {"name": None, "split": "test"}),
        ("some/thing?name=main&split=test", {"name": "main", "split": "test"}),
        ("some/thing?split=train+test", {"name": None, "split": "train+test"}),
        ("some/thing?split=train[:10]&revision=abc", {"name": None, "split": "train[:10]", "revision": "abc"}),
    ],
)
def test_a_hub_id_is_loaded_with_its_options(hub, source, options):
    assert load_rows(source) == [{"prompt": "a"}, {"prompt": "b"}]
    assert hub == [("some/thing", options)]


def test_a_hub_id_that_cannot_be_loaded_is_named_with_the_reason_in_a_line(hub):
    with pytest.raises(UsageError) as error:
        load_rows("some/where")
    assert str(error.value) == (
        "data: 'some/where' is no file (.jsonl, .json, .csv, .tsv, .parquet) and could not be loaded from the hub: "
        "Couldn't find some/where"
    )
    with pytest.raises(UsageError, match="some/nothing has no rows"):
        load_rows("some/nothing")
