"""Answers with programs that draw: judged by what they draw, in the sandbox of programs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cohort.errors import UsageError
from cohort.rewards.plots import drawing
from cohort.rewards.plots.kind import has_form, read_answer
from cohort.rewards.spec import parse
from tests.rewards.code.places import needs_sandbox

pytest.importorskip("matplotlib")

CHART = {"kind": "bar", "series": [{"label": "sales", "x": ["a", "b", "c"], "y": [1, 2, 3]}]}
NAMED = "plt.title('t')\nplt.xlabel('x')\nplt.ylabel('y')\n"
BAR = f"plt.bar(['a', 'b', 'c'], [1, 2, 3])\n{NAMED}plt.show()"


@pytest.mark.parametrize(
    ("text", "answer", "code"),
    [
        (json.dumps({"answer": "5", "code": BAR}), "5", BAR),
        (f"```json\n{json.dumps({'answer': '5', 'code': BAR})}\n```", "5", BAR),
        ('{"answer": 5, "code": "x"}', "5", "x"),
        ('{"answer": "5", "code": """\nplt.plot([1])\n"""}', "5", "\nplt.plot([1])\n"),
        ('{"answer": "say \\"5\\"", "code": "a\nb"}', 'say "5"', "a\nb"),
        ('Here: "answer": 5.5,\n```python\nplt.show()\n```', "5.5", "plt.show()\n"),
        ("nothing", "", ""),
        ("[1]", "", ""),
        ('{"code": 3}', "", ""),
    ],
)
def test_answer_and_program_are_read(text, answer, code):
    assert read_answer(text) == (answer, code)


def test_the_form_is_an_object_alone():
    assert has_form(json.dumps({"answer": "5", "code": BAR}))
    assert not has_form(json.dumps({"answer": "5", "code": BAR + "\nx"}))
    assert not has_form(f"```json\n{json.dumps({'answer': '5', 'code': BAR})}\n```")


# kind of chart, program
DRAWN: dict[str, tuple[str, list[list[Any]]]] = {
    "named bars": ("plt.bar(['a', 'b'], [1, 2])", [["bar", "", [("a", 1.0), ("b", 2.0)]]]),
    "lying bars": ("plt.barh(['a', 'b'], [1, 2])", [["bar", "", [("a", 1.0), ("b", 2.0)]]]),
    "bars of a group": (
        "x = np.arange(2)\nplt.bar(x - 0.2, [1, 2], 0.4, label='m')\n"
        "plt.bar(x + 0.2, [3, 4], 0.4, label='w')\nplt.xticks(x, ['a', 'b'])",
        [["bar", "m", [("a", 1.0), ("b", 2.0)]], ["bar", "w", [("a", 3.0), ("b", 4.0)]]],
    ),
    "bars on bars": (
        "plt.bar(['a'], [1], label='m')\nplt.bar(['a'], [3], bottom=[1], label='w')",
        [["bar", "m", [("a", 1.0)]], ["bar", "w", [("a", 3.0)]]],
    ),
    "lines": (
        "plt.plot([2019, 2020], [1, 2], label='s')\nplt.axhline(1.5)",
        [["line", "s", [(2019.0, 1.0), (2020.0, 2.0)]]],
    ),
    "days": (
        "import datetime as d\nplt.plot([d.date(2024, 1, 1), d.date(2024, 1, 2)], [1, 2])",
        [["line", "", [("2024-01-01", 1.0), ("2024-01-02", 2.0)]]],
    ),
    "scattered": ("plt.scatter([1, 2], [3, 4])", [["scatter", "", [(1.0, 3.0), (2.0, 4.0)]]]),
    "a pie": ("plt.pie([1, 3], labels=['a', 'b'])", [["pie", "", [("a", 0.25), ("b", 0.75)]]]),
    "a pie with a legend": ("plt.pie([1, 3])\nplt.legend(['a', 'b'])", [["pie", "", [("a", 0.25), ("b", 0.75)]]]),
    "areas": (
        "plt.stackplot([1, 2], [1, 2], [3, 4], labels=['m', 'w'])",
        [["area", "m", [(1.0, 1.0), (2.0, 2.0)]], ["area", "w", [(1.0, 3.0), (2.0, 4.0)]]],
    ),
    "a heatmap": (
        "plt.imshow([[1, 2]])\nplt.xticks([0, 1], ['a', 'b'])",
        [["heatmap", "0.0", [("a", 1.0), ("b", 2.0)]]],
    ),
    "with errors": ("plt.errorbar([1, 2], [3, 4], yerr=0.1, capsize=3)", [["line", "", [(1.0, 3.0), (2.0, 4.0)]]]),
    "closed and saved": (
        "plt.plot([1], [2], 'o')\nplt.savefig('/tmp/x.png')\nplt.close('all')",
        [["line", "", [(1.0, 2.0)]]],
    ),
    "gaps": ("plt.plot([1, 2], [np.nan, 4], 'o')", [["line", "", [(2.0, 4.0)]]]),
    "unseen": (
        "plt.plot([1], [2], alpha=0)\nplt.plot([1], [2], visible=False)\nplt.plot([1, 2], [1, 2], linewidth=0)\n"
        "plt.bar(['a'], [1], color='none')\nplt.scatter([1], [2], alpha=0)\nplt.plot([5, 6], [7, 8])\nplt.xlim(0, 2)",
        [],
    ),
    "unnamed": ("plt.plot([1, 2], [3, 4])\nplt.show()", [["line", "", [(1.0, 3.0), (2.0, 4.0)]]]),
}
FAILED = {
    "": "there is no program",
    "1 / 0": "ZeroDivisionError",
    "print(1)": "it drew nothing",
    "import os\nos._exit(0)": "it drew nothing",
    "plt.plot([1], [1, 2])": "ValueError",
    "plt.title('$\\\\frac{$')\nplt.plot([1])": "ParseSyntaxException",
    "import socket\nsocket.create_connection(('127.0.0.1', 80))": "Error",
    "open('/etc/passwd')": "No such file",
    "def": "SyntaxError",
}


@pytest.fixture(scope="module")
def drawn():
    """What all programs draw, in one batch."""
    programs = [program for program, _ in DRAWN.values()] + list(FAILED)
    found = dict(zip([*DRAWN, *FAILED], drawing.draw_all(programs), strict=True))
    yield found
    drawing.close()


@needs_sandbox
@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_is_told(drawn, name):
    found = drawn[name]
    assert (found.executed, found.error) == (True, "")
    assert [[chart.kind, each.label, list(each.points)] for chart in found.charts for each in chart.series] == DRAWN[
        name
    ][1]


@needs_sandbox
@pytest.mark.parametrize("program", FAILED)
def test_what_draws_nothing_says_why(drawn, program):
    assert not drawn[program].executed
    assert FAILED[program] in drawn[program].error


@needs_sandbox
def test_answers_are_judged_by_answer_program_and_data():
    (spec,) = parse(["plot"])
    said = [
        {"answer": "3", "code": BAR},
        {"answer": "3", "code": BAR.replace("3]", "9]")},
        {"answer": "2.7", "code": BAR},
        {"answer": "3", "code": BAR.replace(NAMED, "")},
        {"answer": "3", "code": BAR.replace("bar", "plot")},
        {"answer": "3", "code": "1 / 0"},
        {"answer": "cats", "code": ""},
    ]
    texts = [json.dumps(each) for each in said]
    logged: dict[str, list[Any]] = {}
    columns = {"answer": ["3"] * 7, "chart": [CHART] * 6 + [json.dumps(CHART)]}
    found = spec.load()(texts, log_extra=logged.__setitem__, **columns)
    assert found == pytest.approx(
        [1.0, 0.5 + 0.125 + 0.125, 0.5 * 0.6 * 0.9 + 0.5, 0.5 + 0.25 + 0.125, 0.875, 0.5, 0.0]
    )
    assert logged["plot_error"][0] == ""
    assert "ZeroDivisionError" in logged["plot_error"][5]
    rows = [{"answer": "3", "chart_code": BAR}]
    spec.check_rows([("line 1", row) for row in rows])
    assert spec.load()(texts[:1], answer=["3"], chart_code=[BAR]) == [1.0]
    assert parse(["plot:data"])[0].load()(texts[:2], chart=[CHART] * 2) == [1.0, pytest.approx(2 / 3)]
    assert parse(["plot:runs"])[0].load()([texts[0], texts[5]]) == [1.0, 0.0]
    assert spec.load()(texts[:1], answer=[None], chart=[CHART]) == [None]


@needs_sandbox
@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"chart": CHART}, "compares with the column 'answer'"),
        ({"answer": "3"}, "reads the column 'chart'"),
        ({"answer": "3", "chart": {"kind": "bar"}}, "expected a chart such as"),
        ({"answer": "3", "chart_code": "plt.bar("}, "no program in Python"),
        ({"answer": "3", "chart_code": "print(1)"}, "draws nothing (it drew nothing)"),
    ],
)
def test_rows_that_it_cannot_judge_are_told(row, said):
    with pytest.raises(UsageError, match="line 9") as error:
        parse(["plot"])[0].check_rows([("line 9", row)])
    assert said in str(error.value)


@needs_sandbox
def test_an_interpreter_without_matplotlib_is_told(monkeypatch):
    monkeypatch.setattr(
        drawing, "draw_all", lambda programs: [drawing.Drawn(False, error="ModuleNotFoundError: matplotlib")]
    )
    with pytest.raises(UsageError, match=r"pip install 'cohort-rl\[plots\]'"):
        drawing.check_drawing.__wrapped__()
