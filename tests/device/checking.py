"""Checks on the pretend GPU, in a process of their own: `python -m tests.device.checking REPORT ROOT CHECK...`.

REPORT gets a line of JSON for each check: its name, what it found, and, where it failed, the error with the lines of the
library that it came through. ROOT keeps the policies of tests/micro.py.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch

from tests.device import pretend


def at(error: BaseException) -> list[str]:
    """The lines of the library that an error came through, the innermost first."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/src/cohort/" in f.filename]
    return [f"{f.filename.split('/cohort/')[-1]}:{f.lineno}" for f in reversed(frames)]


def method(name: str, root: Path, steps: int = 2, share: bool = False, **changes: Any) -> dict[str, Any]:
    """Steps of the micro policy with a method: metrics of the last, and what had the host wait in it, by line.

    Args:
        share: have passes share prompts, as they do for models that are not tiny.
    """
    from cohort.engine.native.drawing import Drawing
    from cohort.policies import packing
    from cohort.training.loop import one_step
    from tests import micro
    from tests.stepping import run_of

    given = {"device": pretend.NAME, "dtype": "float32", "prompts_per_step": 4, "group_size": 8, **changes}
    packing.SHARE_SECONDS = -1.0 if share else 1.5e-3
    with micro.method_ready(root, name, steps=steps, **given) as (setup, optimizer, progress):
        run = run_of(setup, optimizer, progress)
        drawn = Drawing.step
        for _ in range(steps):
            decoding = 0

            def counted(self: Drawing, *given: Any) -> Any:
                nonlocal decoding
                decoding += 1
                return drawn(self, *given)

            run.trainer.hold()
            with pretend.waits() as waited, mock.patch.object(Drawing, "step", counted):
                metrics = one_step(run).metrics
        forms = [p.device.type for p in setup.policy.trainable()]
        mode = setup.policy.forward_mode
    lines = {
        f"{line} ({what})": count for (what, line), count in sorted(waited.items(), key=lambda each: each[0][::-1])
    }
    kept = ("loss", "grad_norm", "mismatch_max", "skipped_updates")
    return {
        "metrics": {key: metrics[key] for key in kept if key in metrics},
        "waits": lines,
        "devices": dict(Counter(forms)),
        "mode": mode,
        "decoding_steps": decoding,
    }


def options(root: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """A run of the micro policy, as `cohort.train` takes it."""
    from tests import micro

    own = {"model": str(micro.folder(root)), "out": str(out), "device": pretend.NAME, "dtype": "float32", "quiet": True}
    small = {"steps": 4, "prompts_per_step": 4, "group_size": 4, "doctor": False, "eval_data": micro.ROWS[:4]}
    return {**{k: v for k, v in micro.CONFIG.items() if k != "show_every"}, **own, **small, **changes}


def told(result: Any) -> list[dict[str, Any]]:
    """The metrics of a run that its seed fixes."""
    return [{k: v for k, v in row.items() if not k.startswith("time")} for row in result.metrics]


def resumed(name: str, root: Path, **changes: Any) -> dict[str, Any]:
    """A run that is stopped and gone on with tells what a whole one does, and leaves the same weights."""
    import cohort

    with TemporaryDirectory() as place:
        given = {"checkpoint.every": 2, **changes}
        whole = cohort.train(name, **options(root, Path(place, "whole"), **given))
        cohort.train(name, **options(root, Path(place, "parts"), **{**given, "steps": 2}))
        parts = cohort.train(name, **options(root, Path(place, "parts"), **given, resume=True))
        files = sorted(path.name for path in Path(place, "whole", "final").glob("*.safetensors"))
        weights = [[Path(place, run, "final", name).read_bytes() for name in files] for run in ("whole", "parts")]
        same = repr(told(whole)[2:]) == repr(told(parts)[2:])
        return {"same": same, "weights": bool(files) and weights[0] == weights[1], "accuracy": whole.after.accuracy}


def compared(root: Path) -> dict[str, Any]:
    """Two methods and two seeds of each, measured and set against each other."""
    import cohort
    from tests import micro

    with TemporaryDirectory() as place:
        given = options(root, Path(place, "out"), steps=2, eval_data=micro.ROWS[:3])
        del given["seed"]
        found = cohort.compare(["grpo", "dapo"], seeds=2, samples=2, **given)
        return {"report": (found.folder / "report.html").is_file()}


def episodes(name: str, root: Path, **changes: Any) -> dict[str, Any]:
    """Two agents, each with a policy of its own, in episodes of several turns."""
    import cohort
    from tests import micro
    from tests.training.test_agents import Consulting

    with TemporaryDirectory() as place:
        given = options(root, Path(place, "run"), steps=2, environment=Consulting, max_new_tokens=16, **changes)
        del given["reward"], given["eval_data"]
        result = cohort.train(name, **given, agent_models=[f"sub={micro.folder(root)}"])
        return {"metrics": {key: result.metrics[-1][key] for key in ("loss", "grad_norm", "mismatch_max")}}


def planted(root: Path) -> dict[str, Any]:
    """Which faults of placement are refused, and what has the host wait how often."""
    from cohort.devices import tensor_on, to_device, to_host
    from cohort.types import Batch

    x = torch.rand(4, 3, device=pretend.NAME)
    rows = torch.tensor([2, 0])
    layer = torch.nn.Linear(3, 2)
    there = torch.nn.Linear(3, 2).to(pretend.NAME)
    batch = Batch.of(torch.ones(4, 3, dtype=torch.bool), rewards=torch.rand(4), group=torch.arange(4) // 2)
    faults: dict[str, Callable[[], Any]] = {
        "sum with a tensor of the CPU": lambda: x + torch.ones(3),
        "a constant mask": lambda: torch.where(torch.ones(4, 3, dtype=torch.bool), x, x),
        "a layer left behind": lambda: layer(x),
        "an input left behind": lambda: there(torch.rand(4, 3)),
        "concatenation": lambda: torch.cat([x, torch.zeros(1, 3)]),
        "a value that is put in": lambda: torch.zeros(4, 3).index_put_((rows,), x[:2]),
        "gather by an index of the CPU": lambda: x.gather(1, torch.zeros(4, 1, dtype=torch.int64)),
        "a field of the CPU in a loss": lambda: batch.rewards * x[:, 0],
        "a generator of the CPU": lambda: torch.rand(
            3, generator=torch.Generator().manual_seed(0), device=pretend.NAME
        ),
        "NumPy": lambda: x.numpy(),
    }
    waiting: dict[str, Callable[[], Any]] = {
        "item": lambda: x.sum().item(),
        "float": lambda: float(x.sum()),
        "a truth value": lambda: bool((x > 0).any()),
        "tolist": lambda: x.tolist(),
        "nonzero": lambda: (x > 0.5).nonzero(),
        "a mask as index": lambda: x[x > 0.5],
        "an index of the CPU": lambda: x[rows],
        "a copy to the CPU": lambda: x.cpu(),
        "a copy from the CPU": lambda: rows.to(pretend.NAME),
        "a tensor made there": lambda: torch.tensor([1, 2], device=pretend.NAME),
        "unique": lambda: torch.unique(x),
        "many at once": lambda: to_host(x, x.sum(), x[0]),
    }
    free: dict[str, Callable[[], Any]] = {
        "arithmetic": lambda: (x * 2 + x.sum(1, keepdim=True)).softmax(-1),
        "an index of the device": lambda: x[tensor_on([2, 0], x.device)],
        "a number": lambda: torch.where(x > 0.5, x, torch.zeros(())),
        "what is there already": lambda: to_host(rows),
        "a batch": lambda: batch.to(x.device).groups.count,
        "a mask that is filled": lambda: to_device(torch.ones(3), x.device).masked_fill(x[0] > 0.5, 0.0),
    }

    def refused(fault: Callable[[], Any]) -> bool:
        try:
            fault()
        except (pretend.Misplaced, TypeError):
            return True
        return False

    def counted(what: Callable[[], Any]) -> int:
        with pretend.waits() as waited:
            what()
        return sum(waited.values())

    return {
        "refused": {name: refused(fault) for name, fault in faults.items()},
        "waited": {name: counted(each) for name, each in waiting.items()},
        "free": {name: counted(each) for name, each in free.items()},
    }


CHECKS: dict[str, Callable[..., dict[str, Any]]] = {
    "method": method,
    "resumed": resumed,
    "compared": compared,
    "episodes": episodes,
    "planted": planted,
}


def main(report: str, root: str, *asked: str) -> None:
    """Run checks `NAME` or `NAME:ARGUMENT` or `NAME:ARGUMENT?{"keyword": value}` one after the other."""
    torch.set_num_threads(1)
    pretend.install()
    from cohort.training import device

    device.KINDS[pretend.NAME] = lambda: 1
    for each in asked:
        called, _, given = each.partition("?")
        name, _, argument = called.partition(":")
        found: dict[str, Any] = {"check": each}
        began = time.process_time()
        try:
            arguments = [argument] if argument else []
            found |= CHECKS[name](*arguments, Path(root), **(json.loads(given) if given else {}))
        except Exception as error:
            found |= {"error": f"{type(error).__name__}: {error}", "at": at(error)}
        found["seconds"] = time.process_time() - began
        with Path(report).open("a") as file:
            file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
