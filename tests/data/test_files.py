"""Data files: cells as they stand, rows with their places, and what is said of a file that is malformed."""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import io
import json
import math

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.data.files import FILES, kind_of, read_file
from cohort.errors import UsageError

ROWS = [{"prompt": "1+1=", "answer": 2, "note": "a, b"}, {"prompt": "Ünïcode\n„quotes“", "answer": -3, "note": ""}]
TEXTS = [kind for kind in FILES if kind != ".parquet"]


def encoded(kind, rows):
    """The bytes of a file with these rows."""
    if kind == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if kind == ".json":
        return json.dumps(rows).encode()
    if kind == ".parquet":
        out = io.BytesIO()
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), out)
        return out.getvalue()
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter="\t" if kind == ".tsv" else ",")
    writer.writerows([list(rows[0]), *(list(row.values()) for row in rows)])
    return text.getvalue().encode()


def as_text(rows):
    return [{name: str(value) for name, value in row.items()} for row in rows]


def read(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return read_file(path)


@pytest.mark.parametrize("kind", FILES)
def test_every_format_gives_the_rows_that_were_written(tmp_path, kind):
    expected = as_text(ROWS) if kind in (".csv", ".tsv") else ROWS
    data = encoded(kind, ROWS)
    assert read(tmp_path, f"data{kind}", data) == expected
    assert read(tmp_path, f"DATA{kind.upper()}", data) == expected
    if kind != ".parquet":
        assert read(tmp_path, f"data.v1{kind}.gz", gzip.compress(data, mtime=0)) == expected


def test_the_kind_of_a_file_is_the_end_of_its_name(tmp_path):
    assert kind_of(tmp_path / "a.b.csv") == kind_of(tmp_path / "a.CSV.gz") == ".csv"
    assert [kind_of(tmp_path / name) for name in ("csv", "a.txt", "a.gz", "a.parquet.gz", "a.csv.zip")] == [None] * 5


@pytest.mark.parametrize("kind", [".csv", ".tsv"])
@pytest.mark.parametrize(
    "cell",
    [
        "007",
        "1.50",
        "3",
        "true",
        "12:30",
        "2024-01-05",
        "1208925819614629174706176",
        "1e3",
        "NA",
        "nan",
        "null",
        "None",
        "",
        " a ",
        "a\nb",
        "a\r\nb",
        'say "b"',
        "a,b",
        "a\tb",
        "\\n",
        "-",
        "'",
        "０７",
    ],
)
def test_cells_are_texts_as_they_stand(tmp_path, kind, cell):
    rows = [{"prompt": "a", "answer": cell}, {"prompt": "b", "answer": "1"}]
    assert read(tmp_path, f"data{kind}", encoded(kind, rows)) == rows


def test_other_writers_of_csv_are_read_too(tmp_path):
    rows = as_text(ROWS)
    pyarrow.csv.write_csv(pa.Table.from_pylist(rows), tmp_path / "data.csv")
    assert read_file(tmp_path / "data.csv") == rows


def test_line_ends_may_be_mixed_and_empty_lines_are_passed_over(tmp_path):
    rows = read(tmp_path, "a.csv", b"\xef\xbb\xbf\r\nprompt,answer\r\na,1\n\nb,2\rc,3")
    assert [(row["prompt"], row["answer"], row.place) for row in rows] == [
        ("a", "1", "line 3"),
        ("b", "2", "line 5"),
        ("c", "3", "line 6"),
    ]
    rows = read(tmp_path, "a.jsonl", b'\xef\xbb\xbf{"prompt": "a"}\r\n\n  \n{"prompt": "b"}\r{"prompt": "c"}')
    assert [(row["prompt"], row.place) for row in rows] == [("a", "line 1"), ("b", "line 4"), ("c", "line 5")]
    assert read(tmp_path, "a.json", b'\xef\xbb\xbf[{"prompt": "a"}]') == [{"prompt": "a"}]


def test_a_row_of_several_lines_is_called_by_the_first(tmp_path):
    rows = read(tmp_path, "a.csv", b'prompt,answer\n"a\nb\nc",1\nd,2\n')
    assert [row.place for row in rows] == ["line 2", "line 5"]


def test_a_cell_may_be_a_whole_document(tmp_path):
    limit = csv.field_size_limit()
    assert read(tmp_path, "a.csv", b"prompt\n" + b"x" * 300_000)[0]["prompt"] == "x" * 300_000
    assert csv.field_size_limit() == limit


def test_numbers_of_json_keep_their_values(tmp_path):
    (row,) = read(tmp_path, "a.jsonl", b'{"a": 12345678901234567890123456789, "b": NaN, "c": 1.5, "d": -Infinity}')
    assert (row["a"], row["c"], row["d"]) == (12345678901234567890123456789, 1.5, -math.inf)
    assert math.isnan(row["b"])


def test_records_may_stand_under_a_key(tmp_path):
    assert read(tmp_path, "a.json", b'{"version": "1", "tags": ["x"], "data": [{"prompt": "a"}]}') == [{"prompt": "a"}]


def test_columns_of_parquet_come_as_python_s_own_values(tmp_path):
    table = pa.table(
        {
            "date": pa.array([datetime.date(2024, 1, 5)]),
            "exact": pa.array([decimal.Decimal("1.50")]),
            "word": pa.array(["a"]).dictionary_encode(),
            "large": pa.array(["b"], pa.large_string()),
            "list": pa.array([[1, None]]),
            "chat": pa.array([[{"role": "user", "content": "hi"}]]),
            "none": pa.array([None], pa.string()),
        }
    )
    # A folder of this name is no column.
    (tmp_path / "word=c").mkdir()
    path = tmp_path / "word=c" / "a.parquet"
    pyarrow.parquet.write_table(table, path)
    (row,) = read_file(path)
    assert row == {
        "date": datetime.date(2024, 1, 5),
        "exact": decimal.Decimal("1.50"),
        "word": "a",
        "large": "b",
        "list": [1, None],
        "chat": [{"role": "user", "content": "hi"}],
        "none": None,
    }
    assert (str(row["date"]), str(row["exact"]), row.place) == ("2024-01-05", "1.50", "row 1")


# malformed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"prompt": "a"}\n\n{"prompt": }\n', r"line 3: malformed JSON: Expecting value \(column 12\)$"),
        ("a.jsonl", b'{"prompt": "a"}\n[1]\n', "line 2: expected an object with columns, found list"),
        ("a.jsonl", b'"a"\n', "line 1: expected an object with columns, found str"),
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt": "\xff"}\n', "line 2: byte 0xff is no UTF-8: save the file in UTF-8"),
        (
            "a.jsonl",
            b'{"prompt": "a"}\n{"prompt": "b", "a": {"x": 1, "x": 1}}',
            "line 2: the key 'x' stands several times",
        ),
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt": "b\\ud800"}', r"line 2: a text holds half a character \(\\ud800"),
        ("a.jsonl", b'{"x": ' + b"[" * 2000 + b"]" * 2000 + b"}", "line 1: a value is nested .*deep"),
        ("a.jsonl", b'{"x": ' + b"[" * 100_000, "line 1: "),
        ("a.jsonl", b'{"x": ' + b"9" * 5000 + b"}", "line 1: a number of 5000 digits is too large: write it as a text"),
        ("a.jsonl", b'{"x": 1e999}', "line 1: the number 1e999 is too large: write it as a text"),
        ("a.jsonl", b'{"x": "a\x00"}', "line 1: a NUL byte"),
        ("a.json", b'[{"prompt": "a"},]', r"malformed JSON: .* \(line 1, column 1\d\)"),
        ("a.json", b'{"prompt": "a"}', r"expected a list of objects, found dict \(with prompt\)"),
        ("a.json", b'{"prompt": ["a"]}', "expected a list of objects, found dict"),
        ("a.json", b'{"a": [{"x": 1}], "b": [{"x": 1}]}', "expected a list of objects, found dict"),
        (
            "a.json",
            b'{"prompt": "a"}\n{"prompt": "b"}',
            r"Extra data .*; if every line is a row, name the file \.jsonl",
        ),
        ("a.json", b'[{"prompt": "a"}, 2]', "row 2: expected an object with columns, found int"),
        ("a.json", b'[{"prompt": "a"}, {"a": 1, "a": 2}]', "the key 'a' stands several times in an object"),
        ("a.json", b"3", "expected a list of objects, found int"),
        ("a.json", b"[" * 100_000, "a value is nested too deep"),
        ("a.json", b"", "malformed JSON"),
        (
            "a.csv",
            b"prompt,answer\na,1\nb,1,2\n",
            "line 3: expected 2 cells, as many as the first line has, found 3: put",
        ),
        ("a.csv", b'prompt,answer\n"a\nb",1\nc\n', "line 4: expected 2 cells, as many as the first line has, found 1"),
        ("a.tsv", b"prompt\tanswer\na\t1\t\n", "line 2: expected 2 cells, .*found 3: put a cell that holds a tab"),
        ("a.csv", b'prompt,answer\na,1\n"b,2\nc,3\n', "line 3: malformed: unexpected end of data"),
        ("a.csv", b'prompt,answer\n"a"b,1\n', "line 2: malformed: ',' expected after '\"'"),
        ("a.csv", b"prompt,answer,prompt\na,1,b\n", "there are several columns 'prompt': rename them"),
        (
            "a.csv",
            b"prompt\na\n\xe4\n",
            "line 3: byte 0xe4 is no UTF-8: save the file in UTF-8, as by `iconv -f WINDOWS-1252",
        ),
        ("a.csv", "prompt\na\n".encode("utf-16"), "is in UTF-16: save it in UTF-8, as by `iconv -f UTF-16 -t UTF-8`"),
        ("a.csv", "prompt\na\n".encode("utf-16-le"), "line 1: a NUL byte: remove it, or save the file in UTF-8"),
        (
            "a.csv",
            b"prompt;answer\na;1\n",
            "line 1: the names of the columns are separated by ';': save it with commas",
        ),
        ("a.csv", b"prompt\tanswer\na\t1\n", "separated by '.t': save it with commas or name it .tsv"),
        ("a.csv", b"", "is empty: expected a first line with the names of the columns"),
        ("a.csv", b"\n\n", "is empty: expected a first line"),
        ("a.jsonl.gz", b"no archive", "cannot be read: Not a gzipped file"),
        ("a.csv.gz", gzip.compress(b"prompt\n" + b"a\n" * 5000, mtime=0)[:-20], "cannot be read: "),
        ("a.parquet", b"", "no readable Parquet file"),
        ("a.parquet", b"prompt,answer\n1,2\n", "no readable Parquet file"),
    ],
)
def test_a_malformed_file_is_named_with_the_place_and_what_was_expected(tmp_path, name, content, message):
    with pytest.raises(UsageError, match=message) as caught:
        read(tmp_path, name, content)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_a_parquet_file_with_a_damaged_footer_is_named(tmp_path):
    data = bytearray(encoded(".parquet", ROWS))
    size = int.from_bytes(data[-8:-4], "little")
    data[-8 - size : -8] = bytes(size)
    with pytest.raises(UsageError, match=r"a\.parquet: no readable Parquet file: "):
        read(tmp_path, "a.parquet", bytes(data))


def test_doubled_columns_of_parquet_are_refused(tmp_path):
    pyarrow.parquet.write_table(pa.table([["a"], ["b"]], names=["x", "x"]), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="there are several columns 'x'"):
        read_file(tmp_path / "a.parquet")


# anything ------------------------------------------------------------------------------------------------------------

CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
NAMES = st.lists(CELL, min_size=2, max_size=4, unique=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | CELL,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CELL, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def tables(draw, value):
    names = draw(NAMES)
    rows = draw(st.lists(st.tuples(*(value for _ in names)), min_size=1, max_size=4))
    return [dict(zip(names, row, strict=True)) for row in rows]


@settings(max_examples=100, deadline=None)
@given(rows=tables(CELL), kind=st.sampled_from(FILES), packed=st.booleans())
def test_cells_of_any_text_come_back_from_every_format(tmp_path_factory, rows, kind, packed):
    packed = packed and kind in TEXTS
    data = encoded(kind, rows)
    name = f"data{kind}{'.gz' if packed else ''}"
    found = read(tmp_path_factory.mktemp("any"), name, gzip.compress(data, mtime=0) if packed else data)
    assert found == rows
    assert len({row.place for row in found}) == len(rows)


@settings(max_examples=60, deadline=None)
@given(rows=tables(JSON), kind=st.sampled_from([".jsonl", ".json"]))
def test_values_of_any_kind_come_back_from_json(tmp_path_factory, rows, kind):
    assert read(tmp_path_factory.mktemp("any"), f"data{kind}", encoded(kind, rows)) == rows


VALID = {kind: encoded(kind, [*ROWS, {"prompt": 'a "b"', "answer": 7, "note": "\t"}]) for kind in FILES}


@st.composite
def damaged(draw):
    """A file of some kind with some of its bytes changed, or of bytes that are of none."""
    kind = draw(st.sampled_from(FILES))
    if draw(st.integers(0, 4)) == 0:
        return kind, draw(st.binary(max_size=80))
    data = bytearray(VALID[kind])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(
            st.binary(max_size=3) | st.sampled_from([b'"', b"\n", b"\\", b"{", b","])
        )
    return kind, bytes(data)


@settings(max_examples=300, deadline=None)
@given(file=damaged())
def test_a_damaged_file_gives_rows_or_says_what_is_wrong(tmp_path_factory, file):
    kind, data = file
    folder = tmp_path_factory.mktemp("any")
    try:
        rows = read(folder, f"data{kind}", data)
    except UsageError as error:
        assert str(error).startswith(str(folder))
        assert "\n" not in str(error)[len(str(folder)) :]
    else:
        # What is read can be written: no half characters, no bottomless values.
        assert all(isinstance(name, str) for row in rows for name in row)
        json.dumps(rows, default=str).encode()
        if kind in (".csv", ".tsv"):
            assert all(isinstance(value, str) for row in rows for value in row.values())
