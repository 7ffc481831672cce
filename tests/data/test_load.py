"""Rows of a data set: every format, and what is said of data that cannot be read."""

from __future__ import annotations

import json
import types

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.data.load import load_rows
from cohort.errors import UsageError

ROWS = [
    {"prompt": "1+1=", "answer": 2, "note": "a, b"},
    {"prompt": "Ünïcode\n„quotes“", "answer": -3, "note": ""},
]


def write(path, rows):
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_every_format_gives_the_rows_that_were_written(tmp_path, kind):
    path = write(tmp_path / f"data.{kind}", ROWS)
    assert load_rows(path) == ROWS
    assert load_rows(str(path)) == ROWS


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "data.jsonl", ROWS)
    assert load_rows("~/data.jsonl") == ROWS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.dictionaries(st.text(), JSON, max_size=4), min_size=1, max_size=4), ascii=st.booleans())
def test_objects_of_any_content_come_back_from_lines(tmp_path_factory, rows, ascii):
    path = tmp_path_factory.mktemp("lines") / "data.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=ascii) for row in rows), encoding="utf-8", newline="")
    assert load_rows(path) == rows


def test_empty_lines_and_byte_order_marks_are_passed_over(tmp_path):
    lines = tmp_path / "data.jsonl"
    lines.write_text('\ufeff{"prompt": "a"}\r\n\n  \n{"prompt": "b"}', encoding="utf-8", newline="")
    assert load_rows(lines) == [{"prompt": "a"}, {"prompt": "b"}]
    whole = tmp_path / "data.json"
    whole.write_text('\ufeff[{"prompt": "a"}]', encoding="utf-8")
    assert load_rows(whole) == [{"prompt": "a"}]


def test_rows_from_python_are_copied():
    given = ({"prompt": "a"}, types.MappingProxyType({"prompt": "b"}))
    rows = load_rows(given)
    assert rows == [{"prompt": "a"}, {"prompt": "b"}]
    rows[0]["prompt"] = "c"
    assert given[0] == {"prompt": "a"}
    assert load_rows({"prompt": str(i)} for i in range(2)) == [{"prompt": "0"}, {"prompt": "1"}]


# errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gone.jsonl", "gone.json", "gone.csv", "gone.parquet", "no/such/folder/gone.jsonl"])
def test_a_missing_file_is_named(name):
    with pytest.raises(UsageError, match=f"data: there is no file {name}"):
        load_rows(name)


def test_a_file_of_another_kind_is_named_with_the_known_kinds(tmp_path):
    path = tmp_path / "data.txt"
    path.write_text("1\n")
    with pytest.raises(UsageError, match=r"data\.txt is no file of a known kind \(\.jsonl, \.json, \.csv, \.parquet\)"):
        load_rows(path)
    with pytest.raises(UsageError, match="is no file of a known kind"):
        load_rows(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            b'{"prompt": "a"}\n\n{"prompt": }\n',
            r"a\.jsonl, line 3: malformed JSON: Expecting value \(column 12\)$",
        ),
        ("a.jsonl", b'{"prompt": "a"}\n[1]\n', r"a\.jsonl, line 2: expected an object with columns, found list"),
        ("a.jsonl", b'"a"\n', r"a\.jsonl, line 1: expected an object with columns, found str"),
        ("a.jsonl", b'{"prompt": "\xff"}\n', r"a\.jsonl, line 1: malformed JSON: .*decode"),
        ("a.jsonl", b"", r"a\.jsonl has no rows"),
        ("a.jsonl", b"\n\n", r"a\.jsonl has no rows"),
        ("a.json", b'[{"prompt": "a"},]', r"a\.json: malformed JSON"),
        ("a.json", b'{"prompt": "a"}', r"a\.json: expected a list of objects, found dict"),
        ("a.json", b'[{"prompt": "a"}, 2]', r"a\.json, row 2: expected an object with columns, found int"),
        ("a.json", b"\xff\xfe", r"a\.json: malformed JSON"),
        ("a.json", b"", r"a\.json: malformed JSON"),
        ("a.json", b"[]", r"a\.json has no rows"),
        ("a.csv", b"prompt,answer\na,1,2\n", r"a\.csv: malformed CSV: .*Expected 2 columns, got 3"),
        ("a.csv", b"", r"a\.csv: malformed CSV: Empty CSV file"),
        ("a.csv", b"prompt,answer\n", r"a\.csv has no rows"),
        ("a.parquet", b"", r"a\.parquet: no readable Parquet file"),
        ("a.parquet", b"prompt,answer\n1,2\n", r"a\.parquet: no readable Parquet file"),
    ],
)
def test_a_malformed_file_is_named_with_the_place_and_what_was_expected(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        load_rows(path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the data given has no rows"),
        ([{"prompt": "a"}, "b"], "data, row 2: expected a mapping of columns, found str"),
        ([["prompt", "a"]], "data, row 1: expected a mapping of columns, found list"),
        ({"prompt": ["a", "b"]}, "data, row 1: expected a mapping of columns, found str"),
        ([None], "data, row 1: expected a mapping of columns, found NoneType"),
    ],
)
def test_rows_from_python_that_are_none_are_named(rows, message):
    with pytest.raises(UsageError, match=message):
        load_rows(rows)


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
        "data: 'some/where' is no file (.jsonl, .json, .csv, .parquet) and could not be loaded from the hub: "
        "Couldn't find some/where"
    )
    with pytest.raises(UsageError, match="some/nothing has no rows"):
        load_rows("some/nothing")
