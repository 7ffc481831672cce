"""How time and memory of a step grow with group size, prompt length, completion length and vocabulary.

    python -m benchmarks.scaling --out build/scaling        a plot for each, with the exponents of the fitted powers
    python -m benchmarks.scaling --quick                    smaller ranges, some two minutes
    python -m benchmarks.scaling --json                     the last line is one object with points and exponents

One quantity changes at a time, and everything else stays at the base size, which the options set. Each point is a process
of its own, so that its peak of memory is its own: steps of cohort as `benchmarks.vs_trl` takes them, all rollouts as long
as they may be, and the medians of those after the warm-up. Memory is the peak above what the process held when the first
step began. Exponents are the slopes of straight lines through the logarithms, by least squares: 1 is proportional, 0 is
for nothing.

What a prompt costs must not grow with the number of rollouts that share it. To show that directly, a long prompt is
sampled from and trained on at a single new token, with groups of 1 to 32: all that is left then is the prompt.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.vs_trl import SIZES, figures, make_model, peak

BASE = {"prompt_len": 256, "max_new": 64, "prompts": 2, "steps": 3, "warmup": 1}
RANGES = {
    "group": (2, 4, 8, 16, 32),
    "prompt_len": (64, 128, 256, 512, 1024),
    "max_new": (32, 64, 128, 256, 512),
    "vocab": (500, 2000, 8000, 32_000, 64_000),
}
QUICK = {"group": (2, 4, 8), "prompt_len": (64, 128, 256), "max_new": (16, 32, 64), "vocab": (500, 2000, 8000)}
GROUPS, QUICK_GROUPS = (1, 2, 4, 8, 16, 32), (1, 4, 16)
NAMES = {
    "group": "rollouts of a prompt",
    "prompt_len": "tokens of a prompt",
    "max_new": "new tokens of a rollout",
    "vocab": "tokens of the vocabulary",
}
QUANTITIES = {"sample_s": "sampling, s", "update_s": "update, s", "memory_mb": "peak memory above the start, MB"}
PREFIX_QUANTITIES = {"prefill_s": "prefill and one token", "update_s": "update at one token"}
REPEATS = 5


class Power(NamedTuple):
    """y = factor x ** exponent."""

    exponent: float
    factor: float


def fit(x: Sequence[float], y: Sequence[float]) -> Power | None:
    """The power through points of positive x, by least squares of the logarithms; None with fewer than two points of
    positive y, which alone have a logarithm."""
    points = [(a, b) for a, b in zip(x, y, strict=True) if b > 0]
    if len({a for a, _ in points}) < 2:
        return None
    exponent, log_factor = np.polyfit(*np.log(np.array(points, dtype=float)).T, 1)
    return Power(float(exponent), float(np.exp(log_factor)))


def exponents(points: Sequence[dict[str, float]], axis: str, quantities: Sequence[str]) -> dict[str, float | None]:
    """Of every quantity: the exponent with which it grows along the axis."""
    powers = {name: fit([p[axis] for p in points], [p[name] for p in points]) for name in quantities}
    return {name: None if power is None else power.exponent for name, power in powers.items()}


def output_of(module: str, arguments: Sequence[str]) -> Any:
    """The JSON object on the last line that a benchmark prints, run in a process of its own.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run(folder: Path, size: Namespace, contender: str = "cohort") -> dict[str, float]:
    """Medians of a contender of `benchmarks.vs_trl` on a model that lies in the folder; see `vs_trl.figures`."""
    options = [f"--{name.replace('_', '-')}={getattr(size, name)}" for name in SIZES]
    options += [f"--device={size.device}", f"--dtype={size.dtype}", f"--contender={contender}", f"--folder={folder}"]
    options += ["--trl-checkpointing"] * size.trl_checkpointing + ["--mixed-lengths"] * size.mixed_lengths
    return figures(output_of("benchmarks.vs_trl", options), size)


# the prompt alone ------------------------------------------------------------------------------------------------------


def random_groups(prompts: int, group: int, prompt_len: int, new: int, vocab: int) -> tuple[Any, Any]:
    """(batch, sequences) of random tokens: `prompts` groups of `group` rollouts with `new` tokens each, advantage 1 or -1."""
    import torch

    from cohort.policies.sequences import Sequences
    from cohort.types import Batch

    draw = torch.Generator().manual_seed(0)
    count = prompts * group
    contexts = torch.randint(3, vocab, (prompts, prompt_len), generator=draw).repeat_interleave(group, 0)
    completions = torch.randint(3, vocab, (count, new), generator=draw)
    sign = torch.where(torch.arange(count) % 2 == 0, 1.0, -1.0)
    batch = Batch.of(
        torch.ones(count, new, dtype=torch.bool),
        group=torch.arange(prompts).repeat_interleave(group),
        rewards=sign,
        advantages=sign[:, None].repeat(1, new),
    )
    return batch, Sequences(tuple(contexts), tuple(completions))


def sampler(policy: Any, contexts: Sequence[Any], new: int) -> Callable[[], tuple[float, float]]:
    """Draws exactly `new` tokens after every context, all rollouts at once, and gives the seconds to the first token and
    those from it to the last. A rollout of one token for each distinct context tells when the first has been drawn."""
    from cohort.engine.base import Sampling
    from cohort.engine.native.engine import NativeEngine
    from cohort.types import Prompt, Request

    prompt = Prompt("prompt", "", (), "")
    whole = [tuple(context.tolist()) for context in contexts]
    orders = [(context, new) for context in whole] + [(context, 1) for context in dict.fromkeys(whole)]
    requests = [Request(prompt, context, seed, max_new_tokens=count) for seed, (context, count) in enumerate(orders)]
    engine = NativeEngine(policy, slots=len(requests))

    def draw() -> tuple[float, float]:
        start = first = time.perf_counter()
        for place, completion in engine.generate(requests, Sampling(stop_ids=frozenset())):
            assert len(completion.tokens) == requests[place].max_new_tokens
            if place >= len(whole):
                first = time.perf_counter()
        return first - start, time.perf_counter() - first

    return draw


def trainer(policy: Any, lr: float = 1e-6) -> Callable[[Any, Any], None]:
    """(batch, sequences) -> one update of the policy on them, as the training loop makes it."""
    import torch

    from cohort import registry
    from cohort.training.build import pass_tokens
    from cohort.training.precision import MasterWeights
    from cohort.training.update import gradient

    method = registry.method("grpo(kl_beta=0.0)")
    optimizer = MasterWeights(policy.trainable(), lambda params: method.stage("optimizer")(params, lr))
    bound = method.bind(method.init(size=1, steps=1))

    def update(batch: Any, sequences: Any) -> None:
        gradient(
            policy, bound, batch, sequences, temperature=1.0, micro_tokens=pass_tokens(method, policy), on_policy=True
        )
        torch.nn.utils.clip_grad_norm_(optimizer.params, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return update


def seconds(act: Callable[[], object], device: str = "cpu", repeats: int = REPEATS) -> float:
    """Median of the seconds of some calls, after one that does not count; work on a GPU is waited for."""
    import torch

    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        act()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def run_prefix(folder: Path, size: Namespace) -> dict[str, float]:
    """Seconds that one prompt takes to sample a token of `size.group` rollouts, and to be trained on it."""
    from cohort.training.config import make_config
    from cohort.training.models import load_policy

    options = {"model": str(folder), "device": size.device, "dtype": size.dtype}
    policy = load_policy(make_config(options), lambda _: None)
    batch, sequences = random_groups(1, size.group, size.prefix_len, 1, size.vocab)
    before = peak()
    draw = sampler(policy, sequences.context, 1)
    prefill = seconds(draw, size.device)
    update = trainer(policy)
    trained = seconds(lambda: update(batch, sequences), size.device)
    return {"prefill_s": prefill, "update_s": trained, "memory_mb": peak() - before}


# measuring and drawing -------------------------------------------------------------------------------------------------


def measure(size: Namespace, axis: str, values: Sequence[int]) -> list[dict[str, float]]:
    """A point for each value of an axis."""
    points = []
    for value in values:
        here = Namespace(**{**vars(size), axis: value})
        with tempfile.TemporaryDirectory() as folder:
            make_model(Path(folder), here)
            found = run(Path(folder), here)
        found["memory_mb"] = found["peak_mb"] - found["before_mb"]
        points.append({axis: value, **found})
        print(json.dumps({"axis": axis, **points[-1]}), flush=True)
    return points


def measure_prefix(size: Namespace, groups: Sequence[int]) -> list[dict[str, float]]:
    """A point for each group size, at one new token after a long prompt."""
    points = []
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), Namespace(**{**vars(size), "prompt_len": size.prefix_len}))
        fixed = [
            f"--{name.replace('_', '-')}={getattr(size, name)}" for name in (*SIZES, "prefix_len") if name != "group"
        ]
        fixed += [f"--device={size.device}", f"--dtype={size.dtype}", f"--folder={folder}"]
        for group in groups:
            points.append({"group": group, **output_of("benchmarks.scaling", [*fixed, f"--group={group}"])})
            print(json.dumps({"axis": "prefix", **points[-1]}), flush=True)
    return points


def draw_axis(points: Sequence[dict[str, float]], axis: str, out: Path) -> None:
    """A panel for each quantity, on logarithmic scales, with its fitted line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    for panel, (name, label) in zip(figure.subplots(1, len(QUANTITIES)), QUANTITIES.items(), strict=True):
        x, y = [point[axis] for point in points], [point[name] for point in points]
        panel.set_xscale("log", base=2)
        panel.plot(x, y, "o", color="#1f5fa8")
        power = fit(x, y)
        if power is not None:
            panel.set_yscale("log", base=2)
            panel.plot(x, [power.factor * a**power.exponent for a in x], "-", color="#d1661f")
        panel.set_title(label + ("" if power is None else f"\nexponent {power.exponent:.2f}"), fontsize=11)
        panel.set_xlabel(NAMES[axis])
        panel.set_xticks(x, [f"{a:,}" for a in x])
        panel.yaxis.set_major_formatter("{x:.3g}")
        panel.grid(alpha=0.3)
    figure.savefig(out / f"{axis}.png", dpi=120)


def draw_prefix(points: Sequence[dict[str, float]], length: int, out: Path) -> None:
    """Seconds against group size, beside what they would be if every rollout had its own prompt."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    panel = figure.subplots()
    x = [point["group"] for point in points]
    for (name, label), color in zip(PREFIX_QUANTITIES.items(), ("#1f5fa8", "#d1661f"), strict=True):
        y = [point[name] for point in points]
        panel.plot(x, y, "o-", color=color, label=label)
        panel.plot(
            x, [y[0] * a / x[0] for a in x], ":", color=color, label="  if every rollout had a prompt of its own"
        )
    panel.set_xscale("log", base=2)
    panel.set_xticks(x, [str(a) for a in x])
    panel.set_ylim(0, 4 * max(point[name] for point in points for name in PREFIX_QUANTITIES))
    panel.set_xlabel(NAMES["group"])
    panel.set_ylabel("seconds")
    panel.set_title(f"a prompt of {length:,} tokens, one new token", fontsize=11)
    panel.grid(alpha=0.3)
    panel.legend(fontsize=9)
    figure.savefig(out / "prefix.png", dpi=120)


def parse(arguments: list[str] | None = None) -> Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (default, text) in SIZES.items():
        base = BASE.get(name, default)
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=base, help=f"{text} ({base})")
    parser.add_argument("--prefix-len", type=int, default=1500, help="tokens of the long prompt (1500)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--out", type=Path, default=Path("build/scaling"), help="folder of the plots (build/scaling)")
    parser.add_argument("--quick", action="store_true", help="smaller ranges")
    parser.add_argument("--json", action="store_true", help="end with one object")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    size = parser.parse_args(arguments)
    # What `run` hands on besides: lengths are forced, and TRL does not take part.
    size.mixed_lengths = size.trl_checkpointing = False
    return size


def main() -> int:
    """Measure, draw, and print the exponents."""
    size = parse()
    if size.folder:
        print(json.dumps(run_prefix(size.folder, size)))
        return 0
    size.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for axis, values in (QUICK if size.quick else RANGES).items():
        points = measure(size, axis, values)
        draw_axis(points, axis, size.out)
        found[axis] = {"points": points, "exponents": exponents(points, axis, list(QUANTITIES))}
    points = measure_prefix(size, QUICK_GROUPS if size.quick else GROUPS)
    draw_prefix(points, size.prefix_len, size.out)
    found["prefix"] = {"points": points, "exponents": exponents(points, "group", list(PREFIX_QUANTITIES))}
    for axis, row in found.items():
        powers = "  ".join(
            f"{name} {'-' if power is None else f'{power:.2f}'}" for name, power in row["exponents"].items()
        )
        print(f"{axis:12}{powers}")
    print(f"plots in {size.out}")
    if size.json:
        print(json.dumps({**found, "size": {k: str(v) if k == "out" else v for k, v in vars(size).items()}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
