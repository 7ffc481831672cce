"""What two processes gain over one, and what they send each other.

    python -m benchmarks.scale                 times of all cases, in turns, and the bytes of messages
    python -m benchmarks.scale --rounds 5
    python -m benchmarks.scale --no-bytes      the times alone

Every case is `cohort train` of the same random model, prompts and seed, in processes of its own: one process with one thread,
one with two threads (what a user has who does nothing), two ranks, two Ray workers, and one Ray worker that draws a step
ahead. Cases take turns, so that what else the machine does falls on all; figures are medians over the steps after the warm-up
of all rounds. Efficiency is the time of one process with one thread over twice that of the case. The machine should do nothing
else, and have two cores for it.

Bytes are counted in a network of their own (`unshare --net`, which takes a superuser on Linux), where nothing but the run
sends anything: all that crosses its loopback device in a step. Runs of two lengths part what every token costs from what every
parameter does. Weights that Ray or shared memory hand over within a machine cross no network; a run counts those itself
(`engine/transfer_bytes`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.vs_trl import SIZES, make_model

LIMIT = 900  # seconds of a run
REWARD = "def varied(completions, **_):\n    return [float(len(text) % 3 == 0) for text in completions]\n"


@dataclass(frozen=True)
class Case:
    """A way to run the same training: threads of each process, and options."""

    name: str
    threads: int
    options: tuple[str, ...] = ()


CASES = {
    "one": Case("one process, one thread", 1),
    "threads": Case("one process, two threads", 2),
    "ranks": Case("two ranks, one thread each", 1, ("--processes", "2")),
    "workers": Case("two Ray workers, one thread each", 1, ("--engine", "ray", "--workers", "2")),
    "ahead": Case("one Ray worker, one step ahead", 1, ("--engine", "ray", "--workers", "1", "--ahead", "1")),
}
PARTS = ("time/step", "time/sample", "time/update")


def size_of(**changes: int) -> Namespace:
    """The first size of `vs_trl`, or another."""
    return Namespace(**{name: value for name, (value, _) in SIZES.items()} | changes)


def prepare(folder: Path, size: Namespace) -> int:
    """Write the model, its data and its reward; the number of the model's parameters."""
    from safetensors import safe_open

    make_model(folder / "model", size)
    rng = random.Random(0)
    rows = [
        {"prompt": " ".join(f"w{rng.randrange(3, size.vocab)}" for _ in range(size.prompt_len))} for _ in range(256)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "reward.py").write_text(REWARD)
    with safe_open(folder / "model" / "model.safetensors", "pt") as held:
        names = list(held.keys())
        return sum(held.get_tensor(name).numel() for name in names)


def command(folder: Path, case: Case, size: Namespace, out: Path, steps: int) -> list[str]:
    """The command line of a case."""
    given = {
        "--model": folder / "model",
        "--data": folder / "data.jsonl",
        "--reward": f"{folder / 'reward.py'}:varied",
        "--prompts-per-step": size.prompts,
        "--group-size": size.group,
        "--max-new-tokens": size.max_new,
        "--steps": steps,
        "--lr": 1e-6,
        "--out": out,
    }
    words = [str(word) for pair in given.items() for word in pair]
    # What is written, and what looks on, is no part of the step.
    quiet = [
        word
        for pair in (("record", "none"), ("tensorboard", "false"), ("doctor", "false"), ("checkpoint.every", "100000"))
        for word in ("--set", "=".join(pair))
    ]
    return [sys.executable, "-m", "cohort.cli", "train", "grpo(kl_beta=0)", "--quiet", *words, *quiet, *case.options]


def run(
    folder: Path, case: Case, size: Namespace, steps: int, *, alone: bool = False
) -> tuple[list[dict[str, Any]], int]:
    """(metrics of each step, bytes that crossed the loopback device; 0 unless `alone`: in a network of its own).

    Raises:
        RuntimeError: it failed; the message has the end of what it said.
    """
    with tempfile.TemporaryDirectory(dir=folder) as out:
        words = command(folder, case, size, Path(out) / "run", steps)
        environment = {**os.environ, "OMP_NUM_THREADS": str(case.threads), "HF_HUB_OFFLINE": "1"}
        if alone:
            inside = 'ip link set lo up && "$@" >&2 && cat /proc/net/dev'
            words = ["unshare", "--net", "bash", "-c", inside, "bash", *words]
            environment |= {"GLOO_SOCKET_IFNAME": "lo"}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
        if done.returncode:
            raise RuntimeError(f"{case.name} ended with status {done.returncode}: {done.stderr[-2000:]}")
        rows = [json.loads(line) for line in (Path(out) / "run" / "metrics.jsonl").read_text().splitlines()]
    return rows, loopback(done.stdout) if alone else 0


def loopback(text: str) -> int:
    """Bytes that the loopback device received, of what /proc/net/dev says."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith("lo:")]
    return int(line.split(":")[1].split()[0])


def medians(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Median seconds of a step and its parts."""
    return {part: statistics.median(float(row[part]) for row in rows) for part in PARTS}


def hidden(step: float, apart: Mapping[str, float]) -> float:
    """Share of the shorter stage that does not lengthen a step in which both run at once.

    Args:
        step: its seconds.
        apart: those of sampling and of all else, where they take turns.
    """
    shorter = min(apart["time/sample"], apart["time/step"] - apart["time/sample"])
    return (apart["time/step"] - step) / shorter


def times(folder: Path, size: Namespace, rounds: int, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Medians of each case.

    Raises:
        RuntimeError: a case did not draw the tokens that one process draws.
    """
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    tokens: dict[str, list[float]] = {}
    for turn in range(rounds):
        for name in names:
            steps, _ = run(folder, CASES[name], size, size.warmup + size.steps)
            rows[name] += steps[size.warmup :]
            tokens[name] = [row["tokens"] for row in steps]
            print(
                f"  round {turn + 1}: {CASES[name].name}: {medians(steps[size.warmup :])}", file=sys.stderr, flush=True
            )
    for name in set(names) - {"ahead"}:  # a step ahead, rollouts come from other weights
        if tokens[name] != tokens[names[0]]:
            raise RuntimeError(f"{CASES[name].name}: {tokens[name]} tokens, and {tokens[names[0]]} in one process")
    return {name: medians(each) for name, each in rows.items()}


def slope(few: tuple[float, float], many: tuple[float, float]) -> tuple[float, float]:
    """(what each token costs, what remains without any), of (tokens, bytes) twice."""
    each = (many[1] - few[1]) / (many[0] - few[0])
    return each, few[1] - each * few[0]


def bytes_of(folder: Path, name: str, parameters: int, lengths: tuple[int, int] = (16, 128)) -> dict[str, float]:
    """Bytes a token and a parameter of a step of a case, from runs of two lengths of rollouts; beginning and end, which are no
    part of a step, cancel between runs of different numbers of steps."""
    points = []
    carried = 0.0
    for longest in lengths:
        size = size_of(max_new=longest)
        (short, sent), (long, more) = (run(folder, CASES[name], size, steps, alone=True) for steps in (2, 6))
        points.append(((long[-1]["tokens"] - short[-1]["tokens"]) / 4, (more - sent) / 4))
        carried = statistics.median(float(row.get("engine/transfer_bytes") or 0.0) for row in long[1:])
    token, rest = slope(*points)
    return {
        "bytes a token": token,
        "bytes a parameter": rest / parameters,
        "weights, bytes a parameter": carried / parameters,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", choices=[*CASES], default=[*CASES])
    parser.add_argument("--bytes", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--times", action=argparse.BooleanOptionalAction, default=True)
    asked = parser.parse_args()
    size = size_of()
    with tempfile.TemporaryDirectory(prefix="scale-") as held:
        folder = Path(held)
        parameters = prepare(folder, size)
        found: dict[str, Any] = {"parameters": parameters, "load": os.getloadavg()}
        if asked.times:
            found["times"] = times(
                folder, size, asked.rounds, ["one", *(name for name in asked.cases if name != "one")]
            )
            base = found["times"]["one"]
            print(
                "| | step | sampling | update | step, of one with one thread | efficiency |\n|---|---|---|---|---|---|"
            )
            for name, each in found["times"].items():
                part = base["time/step"] / each["time/step"]
                share = "-" if name == "one" else f"{part / 2:.0%}"
                cells = [f"{each[key]:.2f} s" for key in PARTS]
                print(f"| {CASES[name].name} | {' | '.join(cells)} | {part:.2f} times as fast | {share} |")
            if "ahead" in found["times"]:
                print(
                    f"of the shorter stage {hidden(found['times']['ahead']['time/step'], base):.0%} is hidden one step ahead"
                )
        if asked.bytes and shutil.which("unshare") and os.geteuid() == 0:
            for name in [name for name in ("ranks", "workers") if name in asked.cases]:
                found[f"bytes of {name}"] = bytes_of(folder, name, parameters)
                print(f"{CASES[name].name}: {found[f'bytes of {name}']}")
        elif asked.bytes:
            print("bytes are not counted here: that takes Linux, unshare and a superuser")
        print(json.dumps(found))


if __name__ == "__main__":
    main()
