"""cohort and TRL's GRPOTrainer side by side: the same model, prompts, reward, group sizes and lengths.

    python -m benchmarks.vs_trl                                   the default size
    python -m benchmarks.vs_trl --prompt-len 1000 --group 16 --prompts 2 --max-new 64
    python -m benchmarks.vs_trl --json                            the last line is one object with the ratios

Each contender runs in a process of its own, so that its peak of memory is its own; steps take turns with nothing else, and
the figures are medians over the steps after the warm-up. TRL is needed for this alone: pip install trl.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIZES: dict[str, tuple[int, str]] = {
    "hidden": (256, "width of the model"),
    "layers": (6, "layers"),
    "heads": (8, "attention heads"),
    "kv_heads": (4, "key heads"),
    "vocab": (50, "tokens of the vocabulary"),
    "prompt_len": (70, "tokens of a prompt"),
    "max_new": (128, "most tokens of a rollout"),
    "group": (8, "rollouts of a prompt"),
    "prompts": (4, "prompts a step"),
    "steps": (5, "steps that are timed"),
    "warmup": (2, "steps before them"),
}
END = "<|end|>"


def reward(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    """Something that differs between rollouts and costs nothing."""
    return [float(len(text) % 3 == 0) for text in completions]


def make_model(folder: Path, size: argparse.Namespace) -> None:
    """A random Qwen3 with a tokenizer of one word a token."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    words = {END: 0, "<|pad|>": 1, "<|unknown|>": 2, **{f"w{i}": i for i in range(3, size.vocab)}}
    inner = Tokenizer(models.WordLevel(words, unk_token="<|unknown|>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=END, pad_token="<|pad|>", unk_token="<|unknown|>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=size.vocab,
        hidden_size=size.hidden,
        intermediate_size=4 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        head_dim=size.hidden // size.heads,
        eos_token_id=0,
        pad_token_id=1,
        tie_word_embeddings=True,
        max_position_embeddings=size.prompt_len + size.max_new + 8,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)


def prompts_of(size: argparse.Namespace) -> list[dict[str, str]]:
    import random

    rng = random.Random(0)
    count = size.prompts * (size.steps + size.warmup)
    return [
        {"prompt": " ".join(f"w{rng.randrange(3, size.vocab)}" for _ in range(size.prompt_len))} for _ in range(count)
    ]


def peak() -> float:
    """Largest resident memory of this process so far, MB; of the GPU where there is one."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_cohort(folder: Path, size: argparse.Namespace) -> dict[str, Any]:
    """Times and memory of cohort's steps."""
    from dataclasses import replace

    from cohort.training.assembly import assemble
    from cohort.training.build import prepare
    from cohort.training.config import make_config
    from cohort.training.loop import one_step

    config = make_config(
        {
            "model": str(folder),
            "data": prompts_of(size),
            "reward": [reward],
            "prompts_per_step": size.prompts,
            "group_size": size.group,
            "max_new_tokens": size.max_new,
            "lr": 1e-6,
            "steps": size.steps + size.warmup,
            "device": size.device,
            "dtype": size.dtype,
            "method": "grpo(kl_beta=0.0)",
        }
    )
    setup = prepare(config, log=lambda _: None)
    if not size.mixed_lengths:
        setup.collector.sampling = replace(setup.collector.sampling, stop_ids=frozenset())
    run = assemble(setup)
    before, rows = peak(), []
    for _ in range(config.optimisation.steps):
        start = time.perf_counter()
        metrics = one_step(run).metrics
        tokens = metrics["completion/length_mean"] * metrics["rollouts/sampled"]
        rows.append(
            {
                "step": time.perf_counter() - start,
                "sample": metrics["time/sample"],
                "update": metrics["time/update"],
                "tokens": tokens,
            }
        )
    setup.close()
    return {"rows": rows, "peak_mb": peak(), "before_mb": before}


def run_trl(folder: Path, size: argparse.Namespace) -> dict[str, Any]:
    """Times and memory of TRL's steps."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    rows: list[dict[str, float]] = []
    forced = {} if size.mixed_lengths else {"min_new_tokens": size.max_new}
    config = GRPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=size.prompts * size.group,
        num_generations=size.group,
        max_completion_length=size.max_new,
        max_steps=size.steps + size.warmup,
        learning_rate=1e-6,
        beta=0.0,
        loss_type="grpo",
        temperature=1.0,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        use_cpu=size.device == "cpu",
        bf16=size.dtype == "bfloat16",
        disable_tqdm=True,
        generation_kwargs=forced or None,
        gradient_checkpointing=size.trl_checkpointing,
    )
    dtype = getattr(torch, size.dtype)
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=dtype),
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_list(prompts_of(size)),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    spent = {"sample": 0.0, "tokens": 0.0}
    generate = trainer._generate

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        out = generate(*args, **kwargs)
        spent["sample"] += time.perf_counter() - start
        spent["tokens"] += sum(len(ids) for ids in out[1])
        return out

    trainer._generate = timed

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter()
            spent.update(sample=0.0, tokens=0.0)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            whole = time.perf_counter() - self.start
            rows.append({"step": whole, **spent, "update": whole - spent["sample"]})

    trainer.add_callback(Clock())
    before = peak()
    trainer.train()
    return {"rows": rows, "peak_mb": peak(), "before_mb": before}


CONTENDERS = {"cohort": run_cohort, "trl": run_trl}


def figures(found: dict[str, Any], size: argparse.Namespace) -> dict[str, float]:
    """Medians over the timed steps."""
    rows = found["rows"][size.warmup :]
    median = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    return {
        "step_s": median["step"],
        "sample_s": median["sample"],
        "update_s": median["update"],
        "tokens_per_s": statistics.median(row["tokens"] / row["sample"] for row in rows if row["sample"]),
        "tokens": median["tokens"],
        "peak_mb": found["peak_mb"],
        "before_mb": found["before_mb"],
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (default, text) in SIZES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default, help=f"{text} ({default})")
    parser.add_argument("--mixed-lengths", action="store_true", help="rollouts end when they end; else all are as long")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--trl-checkpointing", action="store_true", help="TRL with gradient checkpointing")
    parser.add_argument("--json", action="store_true", help="end with one object")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> int:
    """Run both and print the table."""
    size = parse()
    if size.contender:
        print(json.dumps(CONTENDERS[size.contender](size.folder, size)))
        return 0
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), size)
        for name in CONTENDERS:
            command = [
                sys.executable,
                "-m",
                "benchmarks.vs_trl",
                *sys.argv[1:],
                "--contender",
                name,
                "--folder",
                folder,
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(done.stderr[-3000:], file=sys.stderr)
                return 1
            found[name] = figures(json.loads(done.stdout.splitlines()[-1]), size)
            print(json.dumps({"contender": name, **found[name]}), flush=True)
    own, other = found["cohort"], found["trl"]
    ratios = {
        "step_ratio": other["step_s"] / own["step_s"],
        "memory_ratio": own["peak_mb"] / other["peak_mb"],
        "working_memory_ratio": (own["peak_mb"] - own["before_mb"]) / max(1.0, other["peak_mb"] - other["before_mb"]),
        "sample_ratio": own["tokens_per_s"] / other["tokens_per_s"],
        "update_ratio": other["update_s"] / own["update_s"],
    }
    print(f"{'':14}{'cohort':>12}{'TRL':>12}")
    for name in ("step_s", "sample_s", "update_s", "tokens_per_s", "tokens", "peak_mb", "before_mb"):
        print(f"{name:14}{own[name]:12.2f}{other[name]:12.2f}")
    print("  ".join(f"{name} {value:.2f}" for name, value in ratios.items()))
    if size.json:
        print(
            json.dumps(
                {**ratios, "cohort": own, "trl": other, "size": {k: v for k, v in vars(size).items() if k != "folder"}}
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
