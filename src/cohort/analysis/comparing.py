"""From finished runs to what a comparison says: means, differences, and a sentence for each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cohort.analysis.curves import Curve, accuracy_curve, axes_of, curves_of, first_at, value_at
from cohort.analysis.findings import Contrast, Entry, Findings, Result
from cohort.analysis.measure import (
    HELD_OUT,
    Samples,
    Weighted,
    about,
    evaluation_path,
    measures_of,
    read_evaluation,
    reliability,
)
from cohort.analysis.sentences import sentence
from cohort.analysis.statistics import (
    ALPHA,
    Estimate,
    Floats,
    Replicates,
    difference,
    estimate,
    holm,
    holm_levels,
    problem_weights,
    seeds_to_show,
    share_difference,
    share_interval,
    share_p,
)
from cohort.analysis.store import Run
from cohort.errors import UsageError

# Of the configuration, what two methods must share for a difference between them to be the methods'.
FAIR = (
    "model",
    "data",
    "eval_data",
    "eval_size",
    "reward",
    "template",
    "system",
    "prompt_field",
    "max_new_tokens",
    "steps",
    "max_tokens_sampled",
    "prompts_per_step",
    "group_size",
    "lr",
    "temperature",
)


def analyse(
    entries: Sequence[Entry], data: Sequence[str] = (HELD_OUT,), *, target: float | None = None, seed: int = 0
) -> Findings:
    """Measure and compare runs that stand on disk.

    Args:
        data: names of evaluations stored with the runs.
        target: accuracy to be reached; None takes `target_of` the runs.
        seed: of the resampling of problems.
    """
    out = Findings([entry.name for entry in entries], list(data))
    out.settings = {entry.name: dict(entry.settings) for entry in entries if entry.settings}
    configs = [run.config for entry in entries for run in entry.runs.values()]
    for key in ("model", "data", "reward"):
        values = [config.get(key) for config in configs]
        if values and values[0] and all(value == values[0] for value in values):
            out.shared[key] = ", ".join(map(str, values[0])) if isinstance(values[0], list) else str(values[0])
    rows = {(entry.name, s): _row(entry.name, s, run) for entry in entries for s, run in entry.runs.items()}
    out.runs = list(rows.values())
    for entry in entries:
        for run in entry.runs.values():
            for problem in run.problems:
                out.note(problem)
    _check_fair(out, entries)
    for name in data:
        _evaluated(out, entries, name, rows, seed)
    _over_time(out, entries, rows, target)
    out.curves = curves_of(entries)
    return out


def _row(entry: str, seed: int, run: Run) -> dict[str, Any]:
    steps = run.metrics[-1]["step"] if run.metrics else 0
    ended = "finished" if run.summary and not run.summary.get("stopped") else f"ended after step {steps}"
    return {"entry": entry, "seed": seed, "folder": str(run.folder), "status": ended, "steps": steps}


def _check_fair(out: Findings, entries: Sequence[Entry]) -> None:
    counts = {len(entry.runs) for entry in entries}
    if counts == {1}:
        out.note(
            "one seed: intervals are over problems alone and say nothing of how much another seed would change; "
            "two seeds are the least that does, five are usual"
        )
    elif len(counts) > 1:
        have = ", ".join(f"{entry.name} {len(entry.runs)}" for entry in entries)
        out.note(f"methods have different numbers of runs: {have}")
    varied = {key for entry in entries for key in entry.settings}
    for key in FAIR:
        found: dict[str, list[str]] = {}
        for entry in entries:
            for run in list(entry.runs.values())[:1]:
                # A run made before there was a key says nothing of it.
                if key in run.config:
                    found.setdefault(str(run.config.get(key)), []).append(entry.name)
        if len(found) > 1 and key not in varied:
            said = "; ".join(f"{', '.join(names)}: {value}" for value, names in found.items())
            what = "trained on different data" if key == "data" else f"run with different {key}"
            out.note(f"{what}, so that differences need not be the methods' ({said})")
    for entry in entries:
        for seed, run in entry.runs.items():
            if not run.summary or run.summary.get("stopped"):
                step = run.metrics[-1]["step"] if run.metrics else 0
                out.note(f"{entry.name}, seed {seed} did not finish (it ended after step {step}): {run.folder}")
            same = run.config.get("eval_data")
            if same is not None and same == run.config.get("data"):
                out.note("the evaluation problems are the training data: nothing here is about unseen problems")


def _evaluated(
    out: Findings, entries: Sequence[Entry], data: str, rows: Mapping[tuple[str, int], dict[str, Any]], seed: int
) -> None:
    samples: dict[tuple[str, int], Samples] = {}
    for entry in entries:
        for s, run in entry.runs.items():
            if not evaluation_path(run.folder, data).exists():
                out.note(f"{entry.name}, seed {s} has no evaluation on {data}: its curves alone are shown")
                continue
            try:
                samples[entry.name, s] = read_evaluation(run.folder, data)
            except UsageError as error:
                out.note(f"{error}; it is left out")
    if not samples:
        return
    found = list(samples.values())
    shared = [i for i in dict.fromkeys(found[0].ids) if all(i in set(each.ids) for each in found)]
    if not shared:
        out.note(f"the runs were evaluated on {data} with different problems and none in common: they are not compared")
        return
    if any(len(each.ids) != len(shared) for each in found):
        out.note(f"evaluations on {data} have {len(shared)} problems in common; the others are left out")
    counts = sorted({each.correct.shape[1] for each in found})
    if len(counts) > 1:
        out.note(f"evaluations on {data} have {', '.join(map(str, counts))} completions a problem")
    weights = problem_weights(len(shared), seed=seed)
    whole = np.ones((1, len(shared)))
    groups: dict[str, dict[str, Replicates]] = {}
    for entry in entries:
        seeds = [s for s in entry.runs if (entry.name, s) in samples]
        measured = {s: measures_of(samples[entry.name, s].of(shared)) for s in seeds}
        for name in dict.fromkeys(name for each in measured.values() for name in each):
            have = [s for s in seeds if name in measured[s]]
            made = _replicates(have, [measured[s][name] for s in have], whole, weights)
            groups.setdefault(name, {})[entry.name] = made
            for s, value in zip(have, made.point, strict=True):
                rows[entry.name, s][f"{data}/{name}"] = float(value)
        if seeds and data == HELD_OUT:
            bins = [reliability(samples[entry.name, s].of(shared)) for s in seeds]
            out.reliability[entry.name] = _merged(bins)
    for name, group in groups.items():
        _compare(out, data, name, group)
    for target, kind in ((out.passes, "pass@"), (out.votes, "maj@")):
        target[data] = _by_k(out, data, kind)


def _replicates(seeds: Sequence[int], parts: Sequence[Weighted], whole: Floats, weights: Floats) -> Replicates:
    point = np.array([part(whole)[0] for part in parts])
    draws = np.array([part(weights) for part in parts]).reshape(len(seeds), len(weights))
    return Replicates(tuple(seeds), point, draws, weights.shape[1])


def _merged(bins: Sequence[Sequence[tuple[float, float, int]]]) -> list[tuple[float, float, int]]:
    """Bins of several runs as one, by tenths of confidence."""
    sums: dict[int, list[float]] = {}
    for sure, right, count in (row for each in bins for row in each):
        total = sums.setdefault(min(9, int(sure * 10)), [0.0, 0.0, 0.0])
        for i, value in enumerate((sure * count, right * count, count)):
            total[i] += value
    return [(a / n, b / n, int(n)) for _, (a, b, n) in sorted(sums.items())]


def _by_k(out: Findings, data: str, kind: str) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {}
    for result in out.results:
        if result.data == data and result.measure.startswith(kind):
            columns = found.setdefault(result.entry, {"k": [], "mean": [], "low": [], "high": []})
            k = float(result.measure.removeprefix(kind))
            for name, value in zip(columns, (k, result.estimate.value, result.low, result.high), strict=True):
                columns[name].append(value)
    return found


def _over_time(
    out: Findings, entries: Sequence[Entry], rows: Mapping[tuple[str, int], dict[str, Any]], target: float | None
) -> None:
    """What is measured along the run: time, memory, tokens, and tokens until the target."""
    runs = {(entry.name, s): run for entry in entries for s, run in entry.runs.items()}
    curves = {key: found for key, run in runs.items() if len(found := accuracy_curve(run)) > 1}
    out.target = target_of(curves) if target is None else target
    ends = [float(each.at["tokens"][-1]) for each in curves.values()]
    out.equal_tokens = min((each for each in ends if each > 0), default=math.nan)
    values: dict[str, dict[str, dict[int, float]]] = {}
    reached: dict[tuple[str, str], list[bool]] = {}
    for (name, s), run in runs.items():
        at = axes_of(run)
        put = {
            "sampled": _last(at["tokens"]),
            "seconds": _last(at["seconds"]),
            "memory": _number(run.summary.get("peak_memory")),
        }
        if (name, s) in curves:
            put["at_tokens"] = value_at(curves[name, s], out.equal_tokens, "tokens")
            for measure, axis in (("tokens_to", "tokens"), ("trained_to", "trained")):
                put[measure], yes = first_at(curves[name, s], out.target, axis)
                reached.setdefault((name, measure), []).append(yes)
        for measure, value in put.items():
            values.setdefault(measure, {}).setdefault(name, {})[s] = value
            rows[name, s][measure] = value
    for measure, by_entry in values.items():
        group = {
            name: Replicates(tuple(found), np.array(list(found.values())), np.empty((len(found), 0)))
            for name, found in by_entry.items()
        }
        if any(np.isfinite(each.point).any() for each in group.values()):
            of = {name: yes for (name, which), yes in reached.items() if which == measure}
            _compare(out, HELD_OUT, measure, group, of)
    spent = [r for r in out.results if r.measure == "sampled"]
    if len(spent) > 1 and spent[0].estimate.value > 0:
        off = max(spent[1:], key=lambda r: abs(r.estimate.value / spent[0].estimate.value - 1))
        share = off.estimate.value / spent[0].estimate.value - 1
        if abs(share) > 0.05:
            out.note(
                f"{off.entry} sampled {abs(share):.0%} {'more' if share > 0 else 'fewer'} tokens than {spent[0].entry}: "
                "the column 'at equal tokens' and the curves against tokens account for that, and a comparison run with "
                "--tokens N stops each run at N"
            )


def target_of(curves: Mapping[tuple[str, int], Curve]) -> float:
    """90 % of the way from where runs start to where the weakest entry that improved ends; NaN if none did."""
    ends: dict[str, list[float]] = {}
    for (name, _), each in curves.items():
        ends.setdefault(name, []).append(float(each.values[-1]))
    start = float(np.mean([each.values[0] for each in curves.values()])) if curves else math.nan
    improved = [mean for values in ends.values() if (mean := float(np.mean(values))) > start + 0.02]
    return math.floor(100 * (start + 0.9 * (min(improved) - start))) / 100 if improved else math.nan


def _last(at: Floats) -> float:
    return float(at[-1]) if len(at) else math.nan


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _compare(
    out: Findings,
    data: str,
    measure: str,
    group: Mapping[str, Replicates],
    reached: Mapping[str, Sequence[bool]] | None = None,
) -> None:
    """Add the means of a measure, and the differences to the first entry."""
    what = about(measure)
    for name, measured in group.items():
        found = estimate(measured)
        low, high = _interval(found, measure)
        yes = (reached or {}).get(name)
        out.results.append(Result(name, data, measure, found, low, high, (sum(yes), len(yes)) if yes else None))
    first = out.entries[0]
    others = [name for name in out.entries[1:] if name in group]
    if first not in group or not others:
        return
    pairs = [difference(group[name], group[first]) for name in others]
    means = {name: estimate(group[name]) for name in (first, *others)}
    p = [
        share_p(means[name], means[first]) if what.unit == "%" and found.se == 0 and found.problems else found.p
        for name, (found, _) in zip(others, pairs, strict=True)
    ]
    for name, (found, paired), raw, corrected, level in zip(others, pairs, p, holm(p), holm_levels(p), strict=True):
        low, high = _apart(found, means[name], means[first], level, share=what.unit == "%")
        needed = seeds_to_show(found, level=level) if not corrected < ALPHA else None
        made = Contrast(name, first, data, measure, found, low, high, raw, corrected, paired, needed, "")
        out.contrasts.append(replace(made, sentence=sentence(made, what)))


def _interval(found: Estimate, measure: str) -> tuple[float, float]:
    """95 % interval of a mean: both of its ends, or none (NaN)."""
    low, high = found.interval()
    if about(measure).unit == "%" and found.problems:
        return share_interval(found.value, found.reach(1 - ALPHA / 2) if found.parts else math.nan, found.problems)
    if math.isnan(low) or found.se == 0:
        return math.nan, math.nan
    # Nothing that is measured but rewards can be below 0.
    low = low if measure == "reward" else max(0.0, low)
    return low, min(1.0, high) if about(measure).unit == "%" or measure == "auroc" else high


def _apart(found: Estimate, mine: Estimate, theirs: Estimate, level: float, *, share: bool) -> tuple[float, float]:
    """Interval of a difference at 1 - level. Where all runs do the same on all problems, resampling finds no error; of
    shares one is known all the same."""
    low, high = found.interval(level)
    if not share or math.isnan(low):
        return low, high
    if found.se == 0 and found.problems:
        low, high = share_difference(mine, theirs, level)
    return max(-1.0, low), min(1.0, high)
