"""From what stands after --reward to a function, and what is said where that fails."""

from __future__ import annotations

import functools
import sys

import pytest

from cohort.data.rows import Row
from cohort.errors import UsageError
from cohort.rewards import verifiers
from cohort.rewards.builtin import FORMS
from cohort.rewards.spec import RewardSpec, parse


@pytest.fixture(autouse=True)
def _own_path(monkeypatch):
    """Folders that a reward file puts on the path are gone after the test."""
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.mark.parametrize(
    ("text", "name", "written", "weight"),
    [
        ("number", "number", "number", 1.0),
        ("0.2*format:^x", "format", "format:^x", 0.2),
        (" 2 * exact ", "exact", "exact", 2.0),
        ("-1*length:100", "length", "length:100", -1.0),
        (".5*math", "math", "math", 0.5),
        ("1e-3*task", "task", "task", 0.001),
        ("format:a*b", "format", "format:a*b", 1.0),
        ("3*format:2*3", "format", "format:2*3", 3.0),
        ("format:one\ntwo", "format", "format:one\ntwo", 1.0),
        ("0.5*some/file.py:mine", "mine", "some/file.py:mine", 0.5),
    ],
)
def test_parse_reads_weight_and_name(text, name, written, weight):
    (spec,) = parse([text])
    assert (spec.name, spec.text, spec.weight, spec.function) == (name, written, weight, None)


def test_names_are_made_unique():
    texts = ["number", "format:a", "number", "format:b", "dir/a.py:number", lambda completions: []]
    assert [spec.name for spec in parse(texts)] == ["number", "format", "number_2", "format_2", "number_3", "<lambda>"]


@pytest.mark.parametrize(
    ("text", "name", "written", "weight"),
    [
        ("0.5*thinking=mine.py:judge", "thinking", "mine.py:judge", 0.5),
        ("form=format:a=b", "form", "format:a=b", 1.0),
        ("format:a=b", "format", "format:a=b", 1.0),
        (" 2 * short-one= length:20", "short-one", "length:20", 2.0),
    ],
)
def test_a_reward_may_be_given_a_name(text, name, written, weight):
    (spec,) = parse([text])
    assert (spec.name, spec.text, spec.weight) == (name, written, weight)


def test_names_that_were_given_are_kept_and_may_not_be_given_twice():
    specs = parse(["number", "number=exact", (2.0, "other=number")])
    assert [(spec.name, spec.text, spec.weight) for spec in specs] == [
        ("number_2", "number", 1.0),
        ("number", "exact", 1.0),
        ("other", "number", 2.0),
    ]
    with pytest.raises(UsageError, match="another one is called 'a', too"):
        parse(["a=exact", "a=number"])


def test_a_python_function_keeps_its_name_and_is_what_is_called():
    def mine(completions):
        return []

    spec, part = parse([mine, functools.partial(mine)])
    assert spec.name == "mine"
    assert spec.load() is mine
    assert part.name == "reward"
    assert not spec.verifies


def test_no_reward_at_all_is_said_with_the_builtin_ones():
    with pytest.raises(UsageError, match="no reward was given; builtin are exact, number, math, math:strict, task"):
        parse([])


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_an_empty_reward_is_refused(text):
    with pytest.raises(UsageError, match=r"write REWARD, WEIGHT\*REWARD"):
        parse(["number", text])


@pytest.mark.parametrize(
    "text", ["0.5*", "1.2.3*exact", "..*exact", "x*exact", "numbr", "format", "format:", "exact:1"]
)
def test_an_unknown_reward_is_named_with_the_builtin_ones(text):
    (spec,) = parse([text])
    with pytest.raises(UsageError) as error:
        spec.load()
    assert f"there is no reward '{text}'" in str(error.value)
    assert all(name in str(error.value) for name in FORMS)
    assert ("did you mean number?" in str(error.value)) == (text == "numbr")


def test_a_malformed_expression_is_named():
    with pytest.raises(UsageError, match=r"reward 'format:\(': no regular expression"):
        parse(["format:("])[0].load()


@pytest.mark.parametrize("text", ["length:ten", "length:-1", "length:0", "length:1.5", "length:²"])
def test_a_length_must_be_a_number_of_tokens(text):
    with pytest.raises(UsageError, match="write length or length:N"):
        parse([text])[0].load()


def test_builtin_rewards_are_loaded():
    specs = parse(["exact", "number", "math", "task", "format:^a", "length", "length:4"])
    loaded = [spec.load() for spec in specs]
    assert loaded[:4] == [verifiers.exact, verifiers.numeric, verifiers.math, verifiers.task]
    assert loaded[4](completions=["a", "b"]) == [1.0, 0.0]
    assert loaded[6](completions=["a"], completion_ids=[[1]]) == [0.75]
    assert [spec.verifies for spec in specs] == [True] * 4 + [False] * 3


def test_a_function_of_a_file_is_loaded_and_may_import_its_neighbours(tmp_path):
    (tmp_path / "a_neighbour_of_rewards.py").write_text("VALUE = 0.25\n")
    file = tmp_path / "mine.py"
    file.write_text(
        "from a_neighbour_of_rewards import VALUE\n\n\ndef quarter(completions):\n    return [VALUE] * len(completions)\n"
    )
    assert parse([f"{file}:quarter"])[0].load()(["a", "b"]) == [0.25, 0.25]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"there is no file .*gone\.py"):
        RewardSpec(f"{tmp_path}/gone.py:f", "f").load()


def test_a_missing_function_is_named_with_those_that_are_there(tmp_path):
    file = tmp_path / "some.py"
    file.write_text("from math import sqrt\nVALUE = 1\n\n\ndef one(): ...\n\n\ndef two(): ...\n")
    for name in ("three", "VALUE"):
        with pytest.raises(UsageError, match=rf"has no function '{name}' \(it has: one, two\)"):
            RewardSpec(f"{file}:{name}", name).load()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f(:\n", "SyntaxError"),
        ("import no_such_module_at_all\n", "ModuleNotFoundError"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
    ],
)
def test_a_file_that_cannot_be_imported_is_named_with_the_reason(tmp_path, source, reason):
    file = tmp_path / "broken.py"
    file.write_text(source)
    with pytest.raises(UsageError, match=rf"broken\.py cannot be imported: {reason}"):
        RewardSpec(f"{file}:f", "f").load()


# rows without an answer ----------------------------------------------------------------------------------------------


def test_rows_that_a_reward_does_not_apply_to_are_counted_before_anything_is_scored():
    golds = ["1", None, "", "None", "x + 1", "three", 2, float("nan")]
    rows = [Row({"prompt": "p", "answer": gold}, f"line {i}") for i, gold in enumerate(golds, 2)]
    missing = "a.csv: 4 of 8 rows have no answer (lines 3, 4, 5, 9): the reward '{}' does not apply to them"
    unread = (
        "a.csv: 2 of 8 rows have an answer that is no number (lines 6, 7): the reward 'number' does not apply to them"
    )
    said = {name: parse([name])[0].inapplicable(rows, "a.csv") for name in ("exact", "math", "number", "length")}
    assert said == {
        "exact": [missing.format("exact")],
        "math": [missing.format("math")],
        "number": [missing.format("number"), unread],
        "length": [],
    }
    assert parse(["number"])[0].inapplicable(rows[:1], "a.csv") == []
