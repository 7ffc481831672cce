"""`--reward plot`: an answer and the program of its chart, judged by what the program draws. Source: arXiv:2601.04582.

A completion is {"answer": text, "code": program with Matplotlib}. The program runs in the sandbox of programs. Where the
paper asks models about the chart, the data that it shows are compared with the row's, and its readability is counted by
title, names of axes, legend and ticks.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from cohort.errors import UsageError, shown
from cohort.rewards.kinds import COMPARED, READ, Function, Placed, Values, plain
from cohort.rewards.plots.drawing import Drawn, check_drawing, close, draw_all
from cohort.rewards.verifiers import text_of, unanswered
from cohort.signals import charts
from cohort.signals.answers import gold_text, is_missing, outside_thought
from cohort.signals.charts import Chart, chart_of
from cohort.signals.json_text import NOTHING, read_json
from cohort.signals.numbers import number
from cohort.signals.wording import normal_words

# Rows whose own programs are run before anything is drawn, spread over the data.
TRIED = 16
_ANSWER = re.compile(r'"answer"\s*:\s*("(?:[^"\\]|\\.)*"|-?[\d.]+)', re.DOTALL)
_CODE = re.compile(
    r'"code"\s*:\s*(?:(?P<quotes>"""|\'\'\')(?P<block>.*?)(?P=quotes)|(?P<text>"(?:[^"\\]|\\.)*"))', re.DOTALL
)
_FENCED = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)```", re.DOTALL | re.IGNORECASE)


class Said(NamedTuple):
    """What a completion says: its answer and its program, "" where it has none."""

    answer: str
    code: str


def read_answer(text: str) -> Said:
    """Answer and program of a completion: of its object of JSON; else of what looks like its fields; else of a fence."""
    value = read_json(text)
    if isinstance(value, Mapping):
        answer, code = value.get("answer", ""), value.get("code", "")
        return Said(answer if isinstance(answer, str) else json.dumps(answer), code if isinstance(code, str) else "")
    answered, coded, fenced = _ANSWER.search(text), _CODE.search(text), _FENCED.findall(text)
    code = ""
    if coded is not None:
        code = coded["block"] if coded["block"] is not None else _unquoted(coded["text"])
    elif fenced:
        code = fenced[-1]
    return Said("" if answered is None else _unquoted(answered[1]), code)


def _unquoted(text: str) -> str:
    """A text of JSON without its quotes, though it may hold line breaks; what is none is itself."""
    try:
        value = json.loads(text, strict=False)
    except ValueError:
        return text.strip('"')
    return value if isinstance(value, str) else text


def has_form(text: str) -> bool:
    """The text is an object of JSON with texts "answer" and "code", of which the latter ends with plt.show()."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if not isinstance(value, dict) or not all(isinstance(value.get(name), str) for name in ("answer", "code")):
        return False
    return bool(value["code"].strip().endswith("plt.show()"))


def well_formed(completions: Sequence[Any], **_: Any) -> Values:
    """1 if the completion is JSON with an answer and a program that ends with plt.show(), and nothing else; else 0."""
    return [float(has_form(outside_thought(text_of(c)).strip())) for c in completions]


def answers_alike(said: str, gold: str) -> bool:
    """Two answers are the same number, or the same words."""
    a, b = number(said), number(gold)
    return a == b if a is not None and b is not None else normal_words(said) == normal_words(gold)


def judged(said: Said, gold: str, drawn: Drawn, wanted: Chart) -> float:
    """The composite reward of an answer and of what its program drew."""
    fit, chart = charts.best(drawn.charts, wanted)
    readability, correctness = charts.ratings(fit, chart)
    kind_fits = chart is not None and wanted.kind in (None, chart.kind)
    s = charts.shape(gold, said.answer, answers_alike(said.answer, gold))
    return charts.composite(s, drawn.executed, kind_fits and fit >= 0.9, readability, correctness)


Judge = Callable[[Said, str, Drawn, Chart], float]
JUDGES: dict[str, Judge] = {
    "": judged,
    "data": lambda said, gold, drawn, wanted: charts.best(drawn.charts, wanted)[0],
    "runs": lambda said, gold, drawn, wanted: float(drawn.executed),
}
_ANY = Chart(None, ())


def drawing(judge: Judge, form: str) -> Function:
    """What a judge says of each completion; None where the row has no answer and the judge reads it."""

    def plot(
        completions: Sequence[Any],
        answer: Sequence[Any] | None = None,
        chart: Sequence[Any] | None = None,
        chart_code: Sequence[Any] | None = None,
        log_extra: Callable[..., None] | None = None,
        **_: Any,
    ) -> Values:
        count = len(completions)
        wanted = [_ANY] * count if form == "runs" else _wanted(chart, chart_code, count)
        said = [read_answer(outside_thought(text_of(c))) for c in completions]
        drawn = draw_all([each.code for each in said])
        if log_extra is not None:
            log_extra("plot_error", [each.error for each in drawn])
        golds = list(answer) if answer is not None else [None] * count
        out: Values = []
        for each, gold, what, want in zip(said, golds, drawn, wanted, strict=True):
            missing = not form and is_missing(gold)
            out.append(None if missing else judge(each, "" if is_missing(gold) else gold_text(gold), what, want))
        return out

    return plot


def _wanted(given: Sequence[Any] | None, code: Sequence[Any] | None, count: int) -> list[Chart]:
    """The chart of each row: its column `chart`, else what its `chart_code` draws."""
    out: list[Chart | None] = [None] * count
    programs = []
    for i in range(count):
        if given is not None and given[i] is not None:
            out[i] = chart_of(_read(given[i]), f"row {i + 1}, column 'chart'")
        else:
            programs.append(str(code[i]) if code is not None else "")
    drawn = dict(zip(programs, draw_all(programs), strict=True))
    rest = iter(programs)
    return [each if each is not None else _only(drawn[next(rest)], f"row {i + 1}") for i, each in enumerate(out)]


def _only(drawn: Drawn, where: str) -> Chart:
    """The chart that a row's own program draws, that with most points where it draws several.

    Raises:
        UsageError: it draws none.
    """
    if not drawn.executed or not drawn.charts:
        raise UsageError(
            f"{where}: the program in the column 'chart_code' draws nothing ({drawn.error or 'no chart with data'}): correct "
            "it, or give the chart's data in the column 'chart'"
        )
    return max(drawn.charts, key=lambda chart: sum(len(each.points) for each in chart.series))


def _read(value: Any) -> Any:
    if isinstance(value, str) and (read := read_json(value)) is not NOTHING:
        return read
    return value


def check(argument: str, rows: Sequence[Placed]) -> None:
    """Programs can be run, and rows have charts; some of their own programs are tried.

    Raises:
        UsageError: they do not; names the row.
    """
    own = []
    for where, row in rows if argument != "runs" else ():
        if not argument and "answer" not in row:
            raise UsageError(COMPARED.format(reward="plot", column="answer", where=where, held=", ".join(row)))
        if row.get("chart") is not None:
            chart_of(_read(row["chart"]), f"{where}, column 'chart'")
        elif row.get("chart_code") in (None, ""):
            lacks = READ.format(reward="plot", column="chart", where=where, held=", ".join(row))
            raise UsageError(f"{lacks}, or a program that draws it as 'chart_code'")
        else:
            own.append((where, row["chart_code"]))
            _parsed(row["chart_code"], f"{where}, column 'chart_code'")
    try:
        check_drawing()
        own = own[:: max(1, -(-len(own) // TRIED))]
        for (where, _), drawn in zip(own, draw_all([str(code) for _, code in own]), strict=True):
            _only(drawn, where)
    finally:
        close()


def _parsed(code: Any, where: str) -> None:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"{where}: no program in Python: {error}; got {shown(code)}") from error


def _unanswered(argument: str, rows: Sequence[Mapping[str, Any]]) -> list[tuple[list[int], str]]:
    return [] if argument else unanswered(argument, rows)


KINDS = (
    plain(
        "plot",
        {form: drawing(judge, form) for form, judge in JUDGES.items()},
        verifies=True,
        inapplicable=_unanswered,
        check=check,
    ),
    plain("plot-format", {"": well_formed}),
)
