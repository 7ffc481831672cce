"""The longest sequence that trains within a fixed memory: cohort's three ways of keeping activations, and TRL.

    python -m benchmarks.longest                        hidden 512, 12 layers, vocabulary 32,000, 4 GB
    python -m benchmarks.longest --contenders stream,trl --budget-gb 6
    python -m benchmarks.longest --json                 the last line is one object with the lengths and ratios

One training step each, forward, backward and AdamW, in float32, on one rollout of a short prompt, alone in its micro-batch.
A step on a few tokens comes first, so that AdamW's moments are there. The rollout is given rather than sampled: cohort's
update (`cohort.training.update.gradient`) is called on it, and TRL's GRPOTrainer trains as ever, but for its
`_prepare_inputs`, which hands out the rollout with an advantage of 1 instead of generating; it has gradient checkpointing
on, and its fused output layer, both its defaults.

Memory is the high-water mark of resident memory that the kernel keeps for a process (ru_maxrss): all of it, weights,
gradients, moments and Python itself. A limit of the address space would not do, since torch reserves much that it never
touches. Each try runs in a process of its own, which a thread ends as soon as the mark is above the budget.

Lengths are powers of 1.19 (2 ** 0.25), so that a length is found to within 19 %. The memory of two short tries gives a
first guess; from there it goes up until a try fails, and down until one does not. Time grows with the square of the length:
nothing longer than `--most-tokens` is tried, and what trains on that many is said to reach at least as far.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.vs_trl import make_model, peak

PROMPT = 16
SHORT = 64
STEP = 2**0.25
OVER = 9
SIZES: dict[str, tuple[int, str]] = {
    "hidden": (512, "width of the model"),
    "layers": (12, "layers"),
    "heads": (8, "attention heads"),
    "kv_heads": (4, "key heads"),
    "vocab": (32_000, "tokens of the vocabulary"),
    "most_tokens": (16_384, "longest sequence that is tried"),
}


def watch(budget_mb: float) -> None:
    """End this process, with a status of its own, as soon as it has held more than the budget."""

    def look() -> None:
        while peak() <= budget_mb:
            time.sleep(0.02)
        os._exit(OVER)

    threading.Thread(target=look, daemon=True).start()


def tokens_of(count: int, vocab: int) -> Any:
    """Prompt [PROMPT] and completion [count - PROMPT] of random tokens."""
    import torch

    ids = torch.randint(3, vocab, (count,), generator=torch.Generator().manual_seed(count))
    return ids[:PROMPT], ids[PROMPT:]


def run_cohort(folder: Path, size: Namespace) -> list[float]:
    """Seconds of both steps of cohort's update."""
    import torch

    from cohort import registry
    from cohort.policies.sequences import Sequences
    from cohort.training.config import make_config
    from cohort.training.models import load_policy
    from cohort.training.precision import MasterWeights
    from cohort.training.update import gradient
    from cohort.types import Batch

    config = make_config({"model": str(folder), "device": "cpu", "activations": size.contender, "lr": 1e-6})
    policy = load_policy(config, print)
    assert policy.activations == size.contender
    method = registry.method("grpo(kl_beta=0.0)")
    optimizer = MasterWeights(
        policy.trainable(), lambda params: method.stage("optimizer")(params, config.optimisation.lr)
    )
    seconds = []
    for length in (SHORT, size.length):
        start = time.perf_counter()
        context, completion = tokens_of(length, size.vocab)
        mask = torch.ones(1, len(completion), dtype=torch.bool)
        batch = Batch.of(
            mask, group=torch.zeros(1, dtype=torch.int64), rewards=torch.ones(1), advantages=torch.ones(mask.shape)
        )
        gradient(
            policy,
            method.bind(method.init(size=1, steps=2)),
            batch,
            Sequences((context,), (completion,)),
            temperature=1.0,
            micro_tokens=length,
            on_policy=True,
        )
        torch.nn.utils.clip_grad_norm_(optimizer.params, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    return seconds


def run_trl(folder: Path, size: Namespace) -> list[float]:
    """Seconds of both steps of TRL's update."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    config = GRPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=2,
        num_generations=2,
        max_steps=2,
        max_completion_length=size.length - PROMPT,
        learning_rate=1e-6,
        beta=0.0,
        loss_type="grpo",
        temperature=1.0,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
        gradient_checkpointing=True,
    )
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_list([{"prompt": "w3"}] * 4),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    lengths = iter((SHORT, size.length))

    def given(_: Any) -> dict[str, Any]:
        context, completion = (ids[None] for ids in tokens_of(next(lengths), size.vocab))
        return {
            "prompt_ids": context,
            "prompt_mask": torch.ones_like(context),
            "completion_ids": completion,
            "completion_mask": torch.ones_like(completion),
            "advantages": torch.ones(1),
            "num_items_in_batch": torch.tensor(completion.numel()),
        }

    trainer._prepare_inputs = given
    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

    trainer.add_callback(Clock())
    trainer.train()
    return [stop - start for start, stop in zip(marks[::2], marks[1::2], strict=True)]


CONTENDERS: dict[str, Callable[[Path, Namespace], list[float]]] = {
    "keep": run_cohort,
    "checkpoint": run_cohort,
    "stream": run_cohort,
    "trl": run_trl,
}


def attempt(name: str, length: int, folder: Path, size: Namespace) -> dict[str, float] | None:
    """Seconds and peak memory (MB) of a step on a sequence of this length; None where memory is too small."""
    sizes = [f"--{key.replace('_', '-')}={getattr(size, key)}" for key in SIZES]
    command = [
        sys.executable,
        "-m",
        "benchmarks.longest",
        *sizes,
        f"--budget-gb={size.budget_gb}",
        f"--contender={name}",
        f"--length={length}",
        f"--folder={folder}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == OVER:
        print(json.dumps({"contender": name, "length": length, "over": "memory"}), flush=True)
        return None
    if done.returncode:
        raise RuntimeError(f"{name} at {length} tokens failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps({"contender": name, "length": length, **found}), flush=True)
    return found


def longest(name: str, folder: Path, size: Namespace) -> dict[str, float]:
    """The longest length, in steps of 1.19, that a contender trains on: `length`, `seconds`, `peak_mb`, and `ended`: 1
    where a longer one did not fit, 0 where none was tried."""
    tried: dict[int, dict[str, float] | None] = {}

    def fits(power: int) -> bool:
        if power not in tried:
            tried[power] = attempt(name, round(STEP**power), folder, size)
        return tried[power] is not None

    most = math.floor(math.log(size.most_tokens, STEP) + 1e-9)
    power = low = 36  # 512 tokens
    if fits(low) and fits(low + 4):
        first, second = tried[low], tried[low + 4]
        assert first is not None
        assert second is not None
        each = (second["peak_mb"] - first["peak_mb"]) / (STEP ** (low + 4) - STEP**low)
        room = size.budget_gb * 1024 - second["peak_mb"]
        guess = math.floor(math.log(STEP ** (low + 4) + room / max(each, 1e-3), STEP))
        power = max(low + 4, min(guess, most))
    while not fits(power):
        power -= 1
        if STEP**power < 2 * SHORT:
            raise RuntimeError(f"{name} does not train within {size.budget_gb} GB at all")
    while power < most and fits(power + 1):
        power += 1
    best = tried[power]
    assert best is not None
    return {"length": round(STEP**power), **best, "ended": float(power < most)}


def parse(arguments: list[str] | None = None) -> Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (default, text) in SIZES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"{text} ({default})")
    parser.add_argument("--budget-gb", type=float, default=4.0, help="memory of a process, GB of 1,024 MB (4)")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help=f"which of {', '.join(CONTENDERS)}")
    parser.add_argument("--json", action="store_true", help="end with one object")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--length", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    size = parser.parse_args(arguments)
    size.contenders = size.contenders.split(",")
    if unknown := set(size.contenders) - set(CONTENDERS):
        parser.error(f"--contenders: there is no {', '.join(sorted(unknown))}; they are {', '.join(CONTENDERS)}")
    return size


def main() -> int:
    """Find every contender's length and print the table."""
    size = parse()
    if size.contender:
        watch(size.budget_gb * 1024)
        seconds = CONTENDERS[size.contender](size.folder, size)
        print(json.dumps({"seconds": seconds[-1], "peak_mb": peak()}))
        return 0
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        # The model's table of positions must reach as far as any try.
        make_model(Path(folder), Namespace(**vars(size), prompt_len=PROMPT, max_new=2**20))
        for name in size.contenders:
            found[name] = longest(name, Path(folder), size)
    print(f"{'':12}{'tokens':>10}{'seconds':>10}{'peak MB':>10}{'over TRL':>10}")
    against = found.get("trl", {}).get("length")
    for name, row in found.items():
        ratio = f"{row['length'] / against:10.2f}" if against else ""
        reach = f"{'' if row['ended'] else '>= '}{row['length']:.0f}"
        print(f"{name:12}{reach:>10}{row['seconds']:10.1f}{row['peak_mb']:10.0f}{ratio}")
    if size.json:
        ratios = {f"{name}_ratio": row["length"] / against for name, row in found.items() if against}
        print(json.dumps({"longest": found, **ratios, "budget_gb": size.budget_gb}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
