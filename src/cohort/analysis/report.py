"""A comparison as a page that needs nothing else, and as tables."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from cohort.analysis.curves import PLOTTED
from cohort.analysis.findings import HEADLINE, Contrast, Findings, Result
from cohort.analysis.measure import BINS, MEASURES, about
from cohort.analysis.sentences import shown
from cohort.files import write_atomically

TITLES = {
    "held-out accuracy": ("Accuracy on held-out problems", "greedy"),
    "accuracy": ("Accuracy in training", "share of rollouts that are correct"),
    "reward/mean": ("Reward", "mean weighted sum of the components"),
    "entropy": ("Entropy", "nats a token"),
    "completion/length_mean": ("Length", "tokens a rollout"),
    "completion/truncated": ("Truncated", "share of rollouts"),
    "kl": ("KL from the reference policy", "nats a token"),
    "grad_norm": ("Gradient norm", "before clipping"),
    "zero_signal_groups": ("Groups without signal", "share of groups whose rewards are all equal"),
}


def write_report(folder: Path, findings: Findings) -> None:
    """Write report.html, and the tables as results.csv, differences.csv, runs.csv and results.json."""
    texts = {
        "report.html": page(findings),
        "results.csv": table(result_rows(findings)),
        "differences.csv": table(difference_rows(findings)),
        "runs.csv": table(findings.runs),
        "results.json": json.dumps(plain(document(findings)), indent=1, default=str) + "\n",
    }
    for name, text in texts.items():
        write_atomically(folder / name, lambda aside, text=text: aside.write_text(text, encoding="utf-8"))  # type: ignore[misc]


# tables ------------------------------------------------------------------------------------------------------------


def result_rows(findings: Findings) -> list[dict[str, Any]]:
    """A row for every mean: in its own unit, shares between 0 and 1."""
    return [
        {
            "data": r.data,
            "measure": r.measure,
            "entry": r.entry,
            **findings.settings.get(r.entry, {}),
            "value": r.estimate.value,
            "low": r.low,
            "high": r.high,
            "standard_error": r.estimate.se,
            "seeds": r.estimate.seeds,
            "problems": r.estimate.problems,
            "reached": None if r.reached is None else r.reached[0],
        }
        for r in findings.results
    ]


def difference_rows(findings: Findings) -> list[dict[str, Any]]:
    """A row for every difference to the first entry."""
    return [
        {
            "data": c.data,
            "measure": c.measure,
            "entry": c.entry,
            "reference": c.reference,
            "value": c.estimate.value,
            "low": c.low,
            "high": c.high,
            "p": c.p,
            "p_holm": c.corrected,
            "paired": c.paired,
            "seeds": c.estimate.seeds,
            "seeds_needed": c.seeds_needed,
            "sentence": c.sentence,
        }
        for c in findings.contrasts
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV; what is not a number, and what a row lacks, is empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: "" if isinstance(v, float) and math.isnan(v) else v for name, v in row.items()} for row in rows
    )
    return out.getvalue()


def document(findings: Findings) -> dict[str, Any]:
    """Everything, for results.json."""
    return {
        "entries": findings.entries,
        "data": findings.data,
        "settings": findings.settings,
        "notes": findings.notes,
        "shared": findings.shared,
        "target": findings.target,
        "equal_tokens": findings.equal_tokens,
        "results": result_rows(findings),
        "differences": difference_rows(findings),
        "runs": findings.runs,
        "curves": findings.curves,
        "passes": findings.passes,
        "votes": findings.votes,
        "reliability": findings.reliability,
    }


def plain(value: Any) -> Any:
    """The value with null in place of numbers that JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


# the page ----------------------------------------------------------------------------------------------------------


def page(findings: Findings) -> str:
    """The whole page as one text: style, numbers and drawing code stand in it."""
    drawn = {
        "entries": findings.entries,
        "data": findings.data,
        "curves": findings.curves,
        "passes": findings.passes,
        "votes": findings.votes,
        "reliability": findings.reliability,
        "settings": findings.settings,
        "results": [row for row in result_rows(findings) if row["measure"] == HEADLINE],
        "differences": [_drawn(c) for c in findings.contrasts if c.measure == HEADLINE],
    }
    numbers = json.dumps(plain(drawn), default=str).replace("<", "\\u003c")
    return Template(_asset("report.html")).substitute(
        title=escape(_title(findings)),
        css=_asset("report.css"),
        body=_body(findings),
        findings=numbers,
        d3=_asset("d3.min.js"),
        plot=_asset("plot.min.js"),
        js=_asset("report.js"),
    )


def _asset(name: str) -> str:
    return (resources.files("cohort.analysis") / "assets" / name).read_text(encoding="utf-8")


def _drawn(found: Contrast) -> dict[str, Any]:
    what = about(found.measure)
    return {
        "data": found.data,
        "measure": found.measure,
        "entry": found.entry,
        "value": found.estimate.value,
        "low": found.low,
        "high": found.high,
        "sentence": found.sentence,
        "scale": what.scale,
        "axis": f"difference in {what.title}, {'points' if what.unit == '%' else what.unit}",
    }


def _title(findings: Findings) -> str:
    names = findings.entries
    if findings.settings:
        return f"{len(names)} settings of {', '.join(_varied(findings))}"
    return ", ".join(names) if len(names) <= 6 else f"{names[0]} and {len(names) - 1} others"


def _body(findings: Findings) -> str:
    parts = [f"<h1>{escape(_title(findings))}</h1>", f'<p class="lead">{escape(_lead(findings))}</p>']
    said = [c for c in findings.contrasts if c.measure == HEADLINE]
    if said:
        many = len(findings.data) > 1
        items = [
            f"<li><b>{escape(c.entry)}</b>{escape(f' on {c.data}' if many else '')}: {escape(c.sentence)}</li>"
            for c in said
        ]
        parts.append(
            f'<div class="box"><b>{HEADLINE}, compared with {escape(findings.entries[0])}</b><ul>{"".join(items)}</ul></div>'
        )
    if findings.notes:
        items = [f"<li>{escape(note)}</li>" for note in findings.notes]
        parts.append(f'<div class="box" role="note"><b>To read this right</b><ul>{"".join(items)}</ul></div>')
    parts.append('<div id="legend" role="group" aria-label="Show or hide"></div>')
    for data in findings.data:
        if any(r.data == data for r in findings.results):
            parts += [f"<h2>Results on {escape(data)}</h2>", _results_table(findings, data)]
    parts += _sections(findings)
    parts += [_differences_table(findings), _runs_table(findings), _how(findings)]
    return "\n".join(part for part in parts if part)


def _varied(findings: Findings) -> list[str]:
    """Parameters of a sweep."""
    return list(dict.fromkeys(name for settings in findings.settings.values() for name in settings))


def _kind(findings: Findings) -> str:
    return "setting" if findings.settings else "method"


def _lead(findings: Findings) -> str:
    seeds = {len([r for r in findings.runs if r["entry"] == name]) for name in findings.entries}
    count = f"{min(seeds)}" if len(seeds) == 1 else f"{min(seeds)} to {max(seeds)}"
    steps = sorted({row["steps"] for row in findings.runs})
    ran = f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
    text = f"{count} seed{'' if count == '1' else 's'} each, {ran} steps"
    problems = [r.estimate.problems for r in findings.results if r.measure == HEADLINE]
    ks = [int(r.measure.removeprefix("pass@")) for r in findings.results if r.measure.startswith("pass@")]
    if problems:
        text += f"; measured on {max(problems)} problems, {max(ks)} completions each"
    return text + "".join(f"; {key} {value}" for key, value in findings.shared.items())


def _sections(findings: Findings) -> list[str]:
    parts: list[str] = []
    if any(c.measure == HEADLINE for c in findings.contrasts):
        figures = [
            _figure(
                "difference",
                HEADLINE,
                f"Difference in {HEADLINE} on {data}",
                "with its interval, corrected by Holm's procedure",
                data=data,
            )
            for data in findings.data
            if any(c.data == data and c.measure == HEADLINE for c in findings.contrasts)
        ]
        parts += ["<h2>Differences</h2>", _charts(figures)]
    if findings.settings and any(r.measure == HEADLINE for r in findings.results):
        figures = [
            _figure("setting", name, f"{HEADLINE} by {name}", "dashed: mean over the other settings", measure=HEADLINE)
            for name in _varied(findings)
        ]
        parts += ["<h2>Settings</h2>", _charts(figures)]
    if findings.curves:
        components = [n for n in findings.curves if n not in TITLES]
        # One component weighs what the sum does: it need not be drawn twice.
        components = components if len(components) > 1 else []
        order = [n for n in ("held-out accuracy", *PLOTTED[:2], *components, *PLOTTED[2:]) if n in findings.curves]
        figures = []
        for name in order:
            title, what = TITLES.get(name, (f"Reward component {name.removeprefix('reward/')}", "mean over rollouts"))
            figures.append(_figure("curve", name, title, what))
        choices = "".join(
            f'<label><input type="radio" name="axis" value="{value}"{" checked" if value == "step" else ""}> {label}</label>'
            for value, label in (("step", "steps"), ("tokens", "sampled tokens"), ("seconds", "time"))
        )
        parts += [
            "<h2>Along the run</h2>",
            f"<fieldset><legend>against</legend>{choices}</fieldset>",
            _charts(figures),
            '<p class="how">Lines are means over seeds; bands reach from the lowest to the highest seed. Curves of training '
            "are moving means over a twentieth of the run.</p>",
        ]
    figures = []
    for data in findings.data:
        for kind, title in (("passes", "pass@k"), ("votes", "maj@k")):
            by_entry = getattr(findings, kind).get(data)
            if by_entry:
                figures.append(_figure("k", kind, f"{title} on {data}", "with 95 % intervals", data=data))
    if findings.reliability:
        figures.append(_figure("reliability", "", "Calibration", "share correct by confidence; dotted: calibrated"))
    if figures:
        parts += ["<h2>Several completions</h2>", _charts(figures)]
    return parts


def _figure(chart: str, of: str, title: str, what: str, **data: str) -> str:
    extra = "".join(f' data-{key}="{escape(value)}"' for key, value in data.items())
    return (
        f'<figure data-chart="{chart}" data-of="{escape(of)}"{extra}>'
        f"<figcaption>{escape(title)}<small>{escape(what)}</small></figcaption></figure>"
    )


def _charts(figures: Iterable[str]) -> str:
    return f'<div class="charts">{"".join(figures)}</div>'


def columns(findings: Findings, data: str) -> list[str]:
    """Measures that the page and the terminal show of a data set, in their order."""
    found = list(dict.fromkeys(r.measure for r in findings.results if r.data == data))
    most = {
        kind: max((int(m.removeprefix(kind)) for m in found if m.startswith(kind)), default=0)
        for kind in ("pass@", "maj@")
    }
    order = ["pass@1", "pass@4", f"pass@{most['pass@']}", f"maj@{most['maj@']}", *MEASURES]
    return [name for name in dict.fromkeys(order) if name in found]


def cell(found: Result) -> tuple[str, str]:
    """A mean as text, and its interval or how many runs it speaks of."""
    what = about(found.measure)
    error = (found.high - found.low) / 2
    value, low, high = (shown(each, what, error=error) for each in (found.estimate.value, found.low, found.high))
    if found.reached is not None and found.reached[0] < found.reached[1]:
        # Runs that never got there count with all their tokens: the mean is at least this.
        return f"≥ {value}", f"reached by {found.reached[0]} of {found.reached[1]}"
    return value, "" if math.isnan(found.low) else f"[{low}, {high}]"


def _results_table(findings: Findings, data: str) -> str:
    measures = columns(findings, data)
    found = {(r.entry, r.measure): r for r in findings.results if r.data == data}
    varied = _varied(findings)
    heads = [_head("", _kind(findings))] + [_head("", name) for name in varied]
    heads += [_head(_unit(name), about(name).title, about(name).what) for name in measures]
    rows = []
    for entry in findings.entries:
        cells = [f'<th scope="row">{escape(entry)}</th>']
        for name in varied:
            value = findings.settings.get(entry, {}).get(name, "")
            number = f' data-value="{value}"' if isinstance(value, int | float) else ""
            cells.append(f"<td{number}>{escape(_setting(value))}</td>")
        for name in measures:
            result = found.get((entry, name))
            if result is None:
                cells.append('<td data-value="">-</td>')
                continue
            value, under = cell(result)
            number = "" if math.isnan(result.estimate.value) else f"{result.estimate.value:.9g}"
            cells.append(f'<td data-value="{number}">{escape(value)}<small>{escape(under)}</small></td>')
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return _table(heads, rows)


def _setting(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _unit(name: str) -> str:
    return about(name).unit


def _head(unit: str, title: str, what: str = "") -> str:
    said = f' title="{escape(what)}"' if what else ""
    return f'<th scope="col"{said}><button type="button">{escape(title)}{escape(f", {unit}" if unit else "")}</button></th>'


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    return (
        f'<div class="scroll" tabindex="0"><table class="sorts"><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _differences_table(findings: Findings) -> str:
    if not findings.contrasts:
        return ""
    keep = {name for data in findings.data for name in columns(findings, data)}
    rows = []
    for c in findings.contrasts:
        if c.measure in keep:
            what = about(c.measure)
            size = shown(c.estimate.value, what, sign=True, unit=True, error=(c.high - c.low) / 2)
            p = "-" if math.isnan(c.corrected) else f"{c.corrected:.3f}" if c.corrected >= 0.001 else "< 0.001"
            rows.append(
                f'<tr><th scope="row">{escape(c.entry)}</th><td class="text">{escape(what.title)}</td>'
                f'<td class="text">{escape(c.data)}</td>'
                f'<td data-value="{_text(c.estimate.value)}">{escape(size)}</td>'
                f'<td data-value="{_text(c.corrected)}">{p}</td>'
                f'<td class="text wide">{escape(c.sentence)}</td></tr>'
            )
    heads = [_head("", title) for title in (_kind(findings), "measure", "data", "difference", "p (Holm)", "in words")]
    return (
        f"<details><summary>All differences to {escape(findings.entries[0])}</summary>{_table(heads, rows)}</details>"
    )


def _text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.9g}"


def _runs_table(findings: Findings) -> str:
    names = [n for n in dict.fromkeys(name for row in findings.runs for name in row) if n not in ("entry", "folder")]
    kept = [n for n in names if "/" not in n or n.split("/", 1)[1] in ("pass@1", "length", "entropy")]
    heads = [_head("", name) for name in (_kind(findings), *kept, "folder")]
    rows = []
    for row in findings.runs:
        cells = [f'<th scope="row">{escape(row["entry"])}</th>']
        for name in kept:
            value = row.get(name, math.nan)
            if isinstance(value, str):
                cells.append(f'<td class="text">{escape(value)}</td>')
                continue
            measure = name.split("/")[-1]
            known = measure in MEASURES or "@" in measure
            said = shown(float(value), about(measure)) if known else f"{value:g}"
            cells.append(f'<td data-value="{_text(float(value))}">{escape(said)}</td>')
        rows.append(f'<tr>{"".join(cells)}<td class="text">{escape(row["folder"])}</td></tr>')
    return f"<details><summary>Runs</summary>{_table(heads, rows)}</details>"


def _how(findings: Findings) -> str:
    measures = dict.fromkeys(name for data in findings.data for name in columns(findings, data))
    terms = "".join(f"<dt>{escape(about(n).title)}</dt><dd>{escape(about(n).what)}</dd>" for n in measures)
    target = "" if math.isnan(findings.target) else f" The target accuracy is {findings.target:.0%}."
    equal = "" if math.isnan(findings.equal_tokens) else f" Equal tokens are {findings.equal_tokens:,.0f}."
    return (
        "<details><summary>How this was measured</summary>"
        "<p>Intervals are 95 %. Seeds and problems are both resampled, problems alike for all methods; the two parts of the "
        "error add with Student's t of their own degrees of freedom. Differences are taken between runs of the same seed on "
        "the same problems. Their p-values are corrected by Holm's procedure over the methods compared with the first, "
        f"measure by measure, and their intervals are at the level of its steps. {BINS} bins of confidence. "
        "'It would take about N seeds' is the number with which a difference of the size found would be shown in 80 % of "
        f"cases.{escape(target)}{escape(equal)}</p><dl>{terms}</dl></details>"
    )
