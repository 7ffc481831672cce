"""Comparing methods: a queue of runs that share everything but the method, each measured the same way, and a report.

Runs go one after the other, all methods with a seed before any with the next, so that an interruption leaves a balanced
set. Whatever is finished stands on disk; the same call goes on after it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cohort import registry
from cohort.analysis.measure import HELD_OUT, evaluated_as, write_evaluation
from cohort.analysis.report import write_report
from cohort.analysis.store import Run, find_runs, is_run, open_run
from cohort.analysis.tables import HEADLINE, Entry, Findings, analyse
from cohort.data.load import load_rows
from cohort.data.prompts import fill, read_source, template_of
from cohort.doctor.watch import observers
from cohort.errors import UsageError
from cohort.files import write_atomically
from cohort.methods import Method
from cohort.rewards.spec import parse
from cohort.training import toy
from cohort.training.build import prompt_spec
from cohort.training.checks import check_method
from cohort.training.config import TrainConfig, make_config
from cohort.training.continuing import RESUMABLE
from cohort.training.display import Display, clock
from cohort.training.evaluation import evaluate_model
from cohort.training.folder import LOCK, Claim, check_place, contents
from cohort.training.inputs import functions_of
from cohort.training.interrupt import ended_by_signals
from cohort.training.run import train
from cohort.types import Rollout

STEPS = 40
SEEDS = 5
SAMPLES = 16
PLAN = "compare.json"
# Keys that are each run's own; the plan is about the others.
OWN = ("method", "seed", "out")
# Keys that runs may differ in and still be seeds of one thing.
BESIDE = (RESUMABLE - {"max_tokens_sampled"}) | {"seed", "out"}


@dataclass(frozen=True)
class Arm:
    """One of the things that are compared.

    Attributes:
        name: in tables and folder names.
        method: expression of its method.
        settings: what a sweep varies, parameter -> value.
        config: configuration keys that are its own.
        made: the method, where it was made in Python.
    """

    name: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    made: Method | None = None

    @property
    def slug(self) -> str:
        """The name as part of a folder's name."""
        return re.sub(r"[^\w.+-]+", "-", self.name).strip("-")


@dataclass
class Plan:
    """What is to be run and measured.

    Attributes:
        folder: of the comparison.
        seeds: number of them, from 0.
        base: configuration keys that all runs share.
        samples: completions of each evaluation problem; 0 measures no runs.
        transfer: name -> data that is measured on besides.
        target: accuracy to be reached; None takes one from the runs.
    """

    folder: Path
    arms: list[Arm]
    seeds: int
    base: dict[str, Any]
    samples: int = SAMPLES
    transfer: dict[str, str] = field(default_factory=dict)
    target: float | None = None

    def run_folder(self, arm: Arm, seed: int) -> Path:
        return self.folder / "runs" / f"{arm.slug}-seed{seed}"

    def config(self, arm: Arm, seed: int) -> TrainConfig:
        """The configuration of a run."""
        own = {"method": arm.method, "seed": seed, "out": str(self.run_folder(arm, seed))}
        return make_config(self.base, arm.config, own)

    def settings(self) -> dict[str, Any]:
        """What all runs share, as it is stored."""
        plain = make_config(self.base).plain()
        measured = {"eval_every", "max_tokens_sampled"}
        return {key: value for key, value in plain.items() if key in measured or key not in {*OWN, *RESUMABLE}}


@dataclass
class Comparison:
    """What came of a comparison.

    Attributes:
        folder: of the comparison, with report.html, results.csv, differences.csv, runs.csv and results.json.
        findings: its numbers and sentences.
        failures: run -> what went wrong.
        stopped: True if it was interrupted; the same call goes on.
    """

    folder: Path
    findings: Findings
    failures: dict[str, str] = field(default_factory=dict)
    stopped: bool = False

    @property
    def report(self) -> Path:
        return self.folder / "report.html"


def compare(
    what: Sequence[str | Path | Method],
    *,
    options: Mapping[str, Any] | None = None,
    seeds: int = SEEDS,
    tokens: int | None = None,
    samples: int = SAMPLES,
    transfer: Mapping[str, str] | None = None,
    target: float | None = None,
    out: str | Path | None = None,
    display: Display | None = None,
) -> Comparison:
    """Run methods and compare them, or compare runs that stand on disk.

    Args:
        what: methods (expressions), or folders of runs or of comparisons, not both.
        options: configuration keys that all runs share.
        seeds: runs of each method.
        tokens: sampled tokens at which each run ends, if it has not made its steps before.
        samples: completions of each evaluation problem; 0 leaves out what is measured of them.
        transfer: name -> further data to measure on.
        target: accuracy for "tokens to target".
        out: folder of the comparison; default: runs/ and a name made of `what`.

    Raises:
        UsageError: what was asked cannot be done; nothing was run.
    """
    display = display or Display()
    folders = [each for each in what if _is_folder(each)]
    if folders and len(folders) < len(what):
        others = ", ".join(str(each) for each in what if not _is_folder(each))
        raise UsageError(
            f"finished runs ({', '.join(map(str, folders))}) and methods to run ({others}) cannot be mixed: run the "
            "methods first, then compare all folders"
        )
    folder = Path(out) if out is not None else Path("runs") / default_name(what)
    check_place(folder)
    checked = checked_transfer(transfer or {})
    if folders:
        if options:
            raise UsageError(
                f"finished runs are compared as they are; {', '.join(sorted(options))} cannot be set for them"
            )
        return compare_runs([Path(str(each)) for each in folders], folder, samples, checked, target, display)
    if len(what) < 2:
        raise UsageError(
            "there is nothing to compare one method with: name two or more, or vary its settings with cohort sweep"
        )
    arms = [
        Arm(str(m.name) or "method", m.name, made=m) if isinstance(m, Method) else Arm(str(m), str(m)) for m in what
    ]
    return run_plan(make_plan(arms, folder, dict(options or {}), seeds, tokens, samples, checked, target), display)


def _is_folder(what: str | Path | Method) -> bool:
    """True for a folder, or a path that was meant as one."""
    if isinstance(what, Method):
        return False
    if isinstance(what, Path):
        return True
    if re.search(r"\.py:|\(", what):
        return False
    return "/" in what or (what not in registry.names() and os.path.isdir(what))


def default_name(what: Sequence[object], kind: str = "compare") -> str:
    """A folder name made of what is compared."""
    parts = [each.name if isinstance(each, (Path, Method)) else Path(str(each)).name for each in what]
    return re.sub(r"[^\w.+-]+", "-", "-".join([kind, *parts])).strip("-")[:100]


def checked_transfer(transfer: Mapping[str, str]) -> dict[str, str]:
    """Further data sets by name, each of which can be read.

    Raises:
        UsageError: a name that is taken or no file name, or data that cannot be read.
    """
    for name, data in transfer.items():
        if name == HELD_OUT or not re.fullmatch(r"[\w.+-]+", name):
            raise UsageError(f"--transfer {name}={data}: a name is letters, digits, '-' and '.', and not '{HELD_OUT}'")
        load_rows(data, seed=0)
    return {name: pinned(data) for name, data in transfer.items()}


def parse_transfer(items: Sequence[str]) -> dict[str, str]:
    """`NAME=DATA` texts.

    Raises:
        UsageError: no name, or one that is given twice.
    """
    out: dict[str, str] = {}
    for item in items:
        name, equals, data = item.partition("=")
        if not equals or not name or not data or name in out:
            raise UsageError(f"--transfer {item}: write NAME=DATA, each name once")
        out[name] = data
    return out


def pinned(data: Any) -> Any:
    """A procedural task with its seed named, so that it is the same for the runs of every seed."""
    if isinstance(data, str) and data.startswith("reasoning_gym:") and not re.search(r"[?&]seed=", data):
        return f"{data}{'&' if '?' in data else '?'}seed=0"
    return data


# the plan ----------------------------------------------------------------------------------------------------------


def make_plan(
    arms: list[Arm],
    folder: Path,
    options: dict[str, Any],
    seeds: int,
    tokens: int | None,
    samples: int,
    transfer: dict[str, str],
    target: float | None,
) -> Plan:
    """A plan that was checked, with what it needs on disk.

    Raises:
        UsageError: an unknown method or key, a method that cannot be trained so, data that cannot be read, or a folder
            that holds another comparison.
    """
    if seeds < 1:
        raise UsageError(f"--seeds {seeds}: it takes one seed or more")
    twice = [arm.name for i, arm in enumerate(arms) if arm.slug in [a.slug for a in arms[:i]]]
    if twice:
        raise UsageError(f"'{twice[0]}' stands there twice (or under a name that makes the same folder)")
    steps = int(options.get("steps", STEPS))
    defaults = {
        "steps": steps,
        "eval_every": max(1, steps // 10),
        "checkpoint.every": max(1, steps // 4),
        "checkpoint.keep": 1,
        "tensorboard": False,
        "show_every": 0,
    }
    own = sorted(set(options) & set(OWN))
    if own:
        raise UsageError(f"{', '.join(own)} differs from run to run and cannot be set for all")
    methods = [arm.made if arm.made is not None else registry.method(arm.method) for arm in arms]
    given = {**defaults, **options, **({} if tokens is None else {"max_tokens_sampled": tokens})}
    config = toy.with_defaults(make_config(given))
    base = {name: getattr(config, name) for name in config.model_fields_set}
    base["checkpoint"] = config.checkpoint.model_dump()
    for key in ("data", "eval_data"):
        base[key] = pinned(base.get(key))
    if base["data"] is None and config.pairs is None:
        raise UsageError("no data was given: --data takes a file, a hub id or reasoning_gym:TASK?...")
    if not config.reward:
        raise UsageError("no reward was given to measure methods by: name one with --reward")
    plan = Plan(folder, arms, seeds, base, samples, transfer, target)
    for arm, method in zip(arms, methods, strict=True):
        check_method(method, plan.config(arm, 0))
    for key in ("data", "eval_data"):
        if base[key] is not None:
            read_source(base[key], prompt_spec(config))
    # As it was asked for, before data is put on disk: the next call asks the same.
    asked = json.loads(json.dumps({**plan.settings(), **contents_of(plan, methods)}, default=str))
    check_folder(folder, asked)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {folder} cannot be made: {error.strerror}") from error
    plan.base.update(_data_on_disk(config, base, folder))
    _store(plan, asked)
    return plan


def contents_of(plan: Plan, methods: Sequence[Method]) -> dict[str, str]:
    """Checksums of the files that all runs compute with, by what they are."""
    config = make_config(plan.base)
    data = {
        f"the contents of {key}": identity(plan.base[key])
        for key in ("data", "eval_data")
        if plan.base[key] is not None
    }
    files: dict[str, str] = {}
    for arm, method in zip(plan.arms, methods, strict=True):
        files |= functions_of(method, arm.method, parse(config.reward))
    return {**data, **{f"the contents of {name}": text for name, text in files.items()}}


def check_folder(folder: Path, asked: Mapping[str, Any]) -> None:
    """The folder is empty, or holds a comparison with the same settings.

    Raises:
        UsageError: it holds something else; names the settings that differ.
    """
    path = folder / PLAN
    if not path.exists():
        if contents(folder):
            raise UsageError(f"{folder} already holds something else: name another folder with --out")
        return
    try:
        stored = dict(json.loads(path.read_text(encoding="utf-8"))["asked"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read, so the comparison cannot go on: name another --out") from error
    # Keys that came since say nothing of what was asked then.
    differing = [key for key in asked if key in stored and stored[key] != asked[key]]
    if differing:
        what = ", ".join(f"{key} (was {stored[key]!r}, now {asked[key]!r})" for key in differing)
        raise UsageError(f"{folder} holds a comparison with other settings: {what}; name another folder with --out")


def _data_on_disk(config: TrainConfig, base: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Data that was given as rows, and a part held out where no evaluation data was given, as files."""
    out: dict[str, Any] = {}
    for key in ("data", "eval_data"):
        if base[key] is not None and not isinstance(base[key], (str, Path)):
            out[key] = str(_write_rows(folder / f"{key}.jsonl", load_rows(base[key])))
    if base["eval_data"] is None:
        if base["data"] is None:
            raise UsageError("nothing was given to measure methods on: name problems with --eval-data")
        rows = load_rows(base["data"])
        count = min(config.eval_size, max(1, len(rows) // 5))
        if len(rows) < 2:
            raise UsageError("the data has a single row: none can be held out to measure on; give --eval-data")
        held = sorted(random.Random(0).sample(range(len(rows)), count))
        out["eval_data"] = str(_write_rows(folder / "held-out.jsonl", [rows[i] for i in held]))
    return out


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    text = "".join(json.dumps(row, default=str) + "\n" for row in rows)
    write_atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"))
    return path


def _store(plan: Plan, asked: Mapping[str, Any]) -> None:
    known = {
        "asked": asked,
        "seeds": plan.seeds,
        "samples": plan.samples,
        "transfer": plan.transfer,
        "arms": [{"name": arm.name, "method": arm.method, "settings": dict(arm.settings)} for arm in plan.arms],
    }
    text = json.dumps(known, indent=1, default=str) + "\n"
    write_atomically(plan.folder / PLAN, lambda aside: aside.write_text(text, encoding="utf-8"))


# the queue ---------------------------------------------------------------------------------------------------------


class _RunDisplay(Display):
    """A run's progress as a bar that goes away; what it says goes to the comparison's log."""

    def __init__(self, outer: Display, label: str, path: Path) -> None:
        super().__init__(quiet=outer.quiet or not outer.console.is_terminal, console=outer.console)
        self.label, self.path = label, path

    def log(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{self.label}: {text}\n")

    def begin(self, what: str, total: int, done: int = 0) -> None:
        super().begin(f"{self.label} {what}", total, done)


def run_plan(plan: Plan, display: Display) -> Comparison:
    """Run what is not finished yet, measure it, and write the report.

    Raises:
        UsageError: another process is at it, or the first run cannot begin.
    """
    claim = Claim(plan.folder)
    try:
        with ended_by_signals():
            return _run_plan(plan, display)
    finally:
        claim.release()


def _run_plan(plan: Plan, display: Display) -> Comparison:
    if plan.seeds == 1:
        display.log(
            "one seed: intervals will be over problems alone, and say nothing of what another seed would change"
        )
    if plan.base.get("model", "toy") == "toy":
        toy.folder(display.log)
    queue = [(arm, seed) for seed in range(plan.seeds) for arm in plan.arms]
    todo = [each for each in queue if not _complete(plan, *each)]
    if len(todo) < len(queue):
        display.log(f"{len(queue) - len(todo)} of {len(queue)} runs stand there already")
    failures: dict[str, str] = {}
    began, stopped = time.monotonic(), False
    for number, (arm, seed) in enumerate(todo):
        label = f"{arm.name} seed {seed}"
        start = time.monotonic()
        try:
            said = _one(plan, arm, seed, _RunDisplay(display, label, plan.folder / "log.txt"))
            stopped = said is None
        except KeyboardInterrupt:
            stopped = True
        except Exception as error:
            runs = plan.folder / "runs"
            if isinstance(error, UsageError) and not (runs.exists() and any(runs.iterdir())):
                # What is wrong with the first run before it began is wrong with what was asked.
                _forget(plan.folder)
                raise
            # Whatever else a run dies of, the others have nothing to do with it.
            said = f"failed: {type(error).__name__}: {str(error).strip() or 'no message'}"
            failures[label] = said.removeprefix("failed: ")
        if stopped:
            display.log(f"stopped after {number} of {len(todo)} runs; the same command goes on")
            break
        took, spent = time.monotonic() - start, time.monotonic() - began
        left = spent / (number + 1) * (len(todo) - number - 1)
        display.log(f"run {number + 1}/{len(todo)}  {label}  {said}  took {clock(took)}  left {clock(left)}")
    entries = []
    for arm in plan.arms:
        made = {s: plan.run_folder(arm, s) for s in range(plan.seeds)}
        entries.append(Entry(arm.name, {s: open_run(f) for s, f in made.items() if is_run(f)}, arm.settings))
    return _reported(
        plan.folder, [entry for entry in entries if entry.runs], plan.transfer, plan.target, failures, stopped, display
    )


def _forget(folder: Path) -> None:
    """Remove what a plan has written, and its folder if nothing else stands in it."""
    for name in (PLAN, "data.jsonl", "eval_data.jsonl", "held-out.jsonl", "log.txt", LOCK):
        (folder / name).unlink(missing_ok=True)
    if (folder / "runs").is_dir() and not any((folder / "runs").iterdir()):
        (folder / "runs").rmdir()
    if not contents(folder):
        folder.rmdir()


def _complete(plan: Plan, arm: Arm, seed: int) -> bool:
    folder = plan.run_folder(arm, seed)
    return _finished(folder) and not _lacking(folder, plan.config(arm, seed), plan.samples, plan.transfer)


def _finished(folder: Path) -> bool:
    run = Run(folder)
    run.refresh(0)
    return run.summary.get("stopped") is False and os.path.isdir(folder / "final")


def _one(plan: Plan, arm: Arm, seed: int, display: Display) -> str | None:
    """Train and measure one run. What to say of it; None if it was interrupted."""
    folder, config = plan.run_folder(arm, seed), plan.config(arm, seed)
    if not _finished(folder):
        result = train(config, method=arm.made, resume=True, display=display, observers=observers(config))
        if result.stopped:
            return None
    measured = evaluate_run(folder, config, plan.samples, plan.transfer, display.log)
    return f"{HEADLINE} {measured[HELD_OUT]:.1%}" if HELD_OUT in measured else "finished"


# measuring ---------------------------------------------------------------------------------------------------------


def _lacking(
    folder: Path, config: TrainConfig, samples: int, transfer: Mapping[str, str]
) -> dict[str, tuple[TrainConfig, dict[str, Any]]]:
    """Evaluations that do not stand there as asked: name -> the configuration that makes it, and what it is made of."""
    if not samples or config.eval_data is None:
        return {}
    out = {}
    for name, data in {HELD_OUT: config.eval_data, **transfer}.items():
        made = {
            "data": identity(data),
            "limit": config.eval_size,
            "temperature": config.temperature,
            "seed": config.seed,
            "reward": config.plain()["reward"],
        }
        stored = evaluated_as(folder, name)
        if stored is None or stored != {**made, "samples": samples}:
            out[name] = (_evaluation_config(folder, config, data), made)
    return out


def identity(data: Any) -> str:
    """By which evaluation data is known again, also in another folder: a file by its name and what it holds."""
    if not isinstance(data, str | Path):
        return f"{len(data)} rows {hashlib.sha256(json.dumps(data, default=str).encode()).hexdigest()[:16]}"
    path = Path(data)
    if not path.is_file():
        return str(data)
    return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"


def _evaluation_config(folder: Path, config: TrainConfig, data: Any) -> TrainConfig:
    """The run's final model on some data, with the run's rewards; of its own way with columns what the data has."""
    left_out = {"method", "eval_data", "pairs", "out", "lora", "data", "model", "checkpoint", "activations"}
    values = {
        key: getattr(config, key)
        for key in config.model_fields_set
        if key not in left_out and not key.startswith("engine")
    }
    if data is not config.eval_data:
        row = load_rows(data, seed=0)[0]
        for key in ("prompt_field", "answer_field"):
            if values.get(key) not in row:
                values.pop(key, None)
        template = template_of(values.get("template"))
        if template is not None:
            try:
                fill(template, row)
            except UsageError:
                del values["template"]
    return make_config(values, {"model": str(folder / "final"), "data": data})


def judged(rollouts: Sequence[Rollout], samples: int) -> list[Rollout]:
    """Those of problems whose completions, `samples` of each, all have a reward and a verdict."""
    problems = [rollouts[i : i + samples] for i in range(0, len(rollouts), samples)]
    return [r for group in problems if all(r.scored and not math.isnan(r.accuracy) for r in group) for r in group]


def evaluate_run(
    folder: Path, config: TrainConfig, samples: int, transfer: Mapping[str, str], log: Callable[[str], None]
) -> dict[str, float]:
    """Measure a finished run on what it lacks, and store the completions with it. Name -> pass@1 of what was measured.

    Runs of one seed draw with the same request seeds, whatever their method.
    """
    out = {}
    for name, (made_of, made) in _lacking(folder, config, samples, transfer).items():
        found = evaluate_model(made_of, samples=samples, limit=config.eval_size, log=log)
        rollouts = judged(found.rollouts, samples)
        if not rollouts:
            raise UsageError(
                f"{folder}: no problem of {name} has a verdict on all {samples} of its completions, so none counts: ask for "
                "fewer with --samples, or take a reward that applies to every completion"
            )
        if len(rollouts) < len(found.rollouts):
            left = (len(found.rollouts) - len(rollouts)) // samples
            log(
                f"{left} of {found.problems} problems of {name} are left out: the verifier does not apply to a completion"
            )
        write_evaluation(folder, name, rollouts, samples, made)
        out[name] = sum(r.accuracy for r in rollouts) / len(rollouts)
    return out


# runs that stand there ---------------------------------------------------------------------------------------------


def compare_runs(
    folders: Sequence[Path],
    out: Path,
    samples: int,
    transfer: Mapping[str, str],
    target: float | None,
    display: Display,
) -> Comparison:
    """Compare finished runs, those of one method and configuration as seeds of one entry."""
    runs = []
    for folder in folders:
        inside = [] if is_run(folder) else find_runs(folder)
        runs += [open_run(each) for each in inside or [folder]]
    runs = list({run.folder.resolve(): run for run in runs}.values())
    entries, notes = grouped(runs)
    if len(runs) < 2:
        raise UsageError(f"{runs[0].folder} is one run: name another one to compare it with")
    if contents(out) and not _holds_report(out):
        raise UsageError(f"{out} already holds something else: name another folder with --out")
    failures: dict[str, str] = {}
    for run in runs:
        why = _unmeasurable(run)
        if why and samples:
            notes.append(f"{run.folder} cannot be measured on its evaluation problems: {why}")
        elif samples:
            try:
                keys = {key: value for key, value in run.config.items() if value is not None}
                evaluate_run(run.folder, make_config(keys), samples, transfer, display.log)
            except Exception as error:
                # A run that cannot be measured is shown with what it has.
                failures[str(run.folder)] = f"{type(error).__name__}: {error}"
    out.mkdir(parents=True, exist_ok=True)
    return _reported(out, entries, transfer, target, failures, False, display, notes)


def _holds_report(folder: Path) -> bool:
    """True if a comparison of runs was written there."""
    try:
        stored = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(stored, dict) and {"entries", "results"} <= set(stored) and (folder / "report.html").is_file()


def _unmeasurable(run: Run) -> str | None:
    if not _finished(run.folder):
        return "it has no final model"
    if run.config.get("eval_data") is None:
        return "it was trained without eval_data"
    rewards = run.config.get("reward")
    given = [run.config.get("eval_data"), *(rewards if isinstance(rewards, list) else [])]
    if any(str(value).startswith("<") for value in given):
        return "its rewards or its data were given from Python"
    return None


def grouped(runs: Sequence[Run]) -> tuple[list[Entry], list[str]]:
    """Runs that differ in their seed alone as one entry, named by the method and by what else tells it apart."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        keys = {k: v for k, v in run.config.items() if k not in BESIDE}
        groups.setdefault(json.dumps(keys or str(run.folder), sort_keys=True, default=str), []).append(run)
    found = list(groups.values())
    notes: list[str] = []
    entries: list[Entry] = []
    for members in found:
        first = members[0].config
        name = str(first.get("method", members[0].name))
        same = [each[0].config for each in found if str(each[0].config.get("method", each[0].name)) == name]
        apart = [k for k in first if k not in BESIDE and any(c.get(k, first[k]) != first[k] for c in same)]
        if apart:
            name += f" ({', '.join(f'{key}={_short(first[key])}' for key in apart)})"
        elif len(same) > 1:
            name += f" ({members[0].folder})"
        seeds: dict[int, Run] = {}
        for run in members:
            seed = run.config.get("seed")
            seed = seed if isinstance(seed, int) else 0
            if seed in seeds:
                notes.append(f"{run.folder} repeats {seeds[seed].folder} (same configuration and seed) and is left out")
            seeds.setdefault(seed, run)
        entries.append(Entry(name, dict(sorted(seeds.items()))))
    return entries, notes


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:18]}...{text[-18:]}"


def _reported(
    folder: Path,
    entries: Sequence[Entry],
    transfer: Mapping[str, str],
    target: float | None,
    failures: dict[str, str],
    stopped: bool,
    display: Display,
    notes: Sequence[str] = (),
) -> Comparison:
    if not entries:
        first = next(iter(failures.items()), None)
        why = f": {first[0]}: {first[1]}" if first else ""
        raise UsageError(f"no run left anything to compare{why}")
    findings = analyse(entries, [HELD_OUT, *transfer], target=target)
    findings.notes = [*notes, *(f"{run}: {what}" for run, what in failures.items()), *findings.notes]
    write_report(folder, findings)
    return Comparison(folder, findings, failures, stopped)
