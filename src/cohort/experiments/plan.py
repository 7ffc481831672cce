"""What is to be run and measured: checked, and stored so that the same call goes on with it."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cohort import registry
from cohort.analysis.configuration import flat
from cohort.analysis.measure import HELD_OUT
from cohort.data.load import load_rows
from cohort.data.prompts import read_source
from cohort.errors import UsageError
from cohort.files import write_atomically
from cohort.methods import Method
from cohort.rewards.spec import parse
from cohort.training.build import composition_of, prompt_spec
from cohort.training.checks import check_method
from cohort.training.config import TrainConfig, make_config
from cohort.training.continuing import RESUMABLE
from cohort.training.defaults import with_defaults
from cohort.training.episodes import answers
from cohort.training.folder import contents
from cohort.training.inputs import answering, functions_of

STEPS = 40
SEEDS = 5
SAMPLES = 16
PLAN = "compare.json"
# Keys that are each run's own; the plan is about the others.
OWN = ("method", "seed", "out")
# Keys of a run of many processes, which runs that are compared are not.
RANKS = ("processes", "shard", "tensor_parallel", "restarts")


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
    ranks = sorted(set(options) & set(RANKS))
    if ranks:
        raise UsageError(
            f"{', '.join(ranks)}: runs that are compared have one process each, so that they have the same time; leave it out"
        )
    methods = [arm.made if arm.made is not None else registry.method(arm.method) for arm in arms]
    given = {**defaults, **options, **({} if tokens is None else {"max_tokens_sampled": tokens})}
    config = with_defaults(make_config(given))
    base = config.given()
    for key in ("data", "eval_data"):
        base[key] = pinned(base.get(key))
    if base["data"] is None and config.dataset.pairs is None:
        raise UsageError("no data was given: --data takes a file, a hub id or reasoning_gym:TASK?...")
    if not config.rewards.reward and not answers(config):
        raise UsageError("no reward was given to measure methods by: name one with --reward")
    plan = Plan(folder, arms, seeds, base, samples, transfer, target)
    for arm, method in zip(arms, methods, strict=True):
        made = plan.config(arm, 0)
        check_method(method, made)
        if made.rewards.reward and not answers(made):
            composition_of(made, parse(made.rewards.reward))
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
        rewards = parse(config.rewards.reward) if config.rewards.reward else []
        files |= functions_of(method, arm.method, rewards, answering(config))
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
        stored = flat(json.loads(path.read_text(encoding="utf-8"))["asked"])
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
        count = min(config.evaluation.eval_size, max(1, len(rows) // 5))
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


def identity(data: Any) -> str:
    """By which evaluation data is known again, also in another folder: a file by its name and what it holds."""
    if not isinstance(data, str | Path):
        return f"{len(data)} rows {hashlib.sha256(json.dumps(data, default=str).encode()).hexdigest()[:16]}"
    path = Path(data)
    if not path.is_file():
        return str(data)
    return f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
