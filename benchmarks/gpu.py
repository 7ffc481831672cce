"""How near to the limits of a GPU cohort samples and trains, and how far from TRL.

    python -m benchmarks.gpu                      a random model in bfloat16 of the shape of Qwen2.5-1.5B, batch of 64
    python -m benchmarks.gpu --no-trl --json      without the comparison; the last line is one object
    python -m benchmarks.gpu --device cpu --tiny  the same on a tiny model: shows that it runs, its figures say nothing

Decoding is bound by memory: a step reads the weights once, and every key and value once that it attends to; those of a
prompt once for all its rollouts. The limit is those bytes over the bandwidth that copying a large block reaches on the
same device, and the figure is the share of it: the limit's time over the measured one. Time before the first token does
not count.

Training is bound by arithmetic: forward and backward take 6 operations for each weight and token, and 12 for each pair of
query and key and each number of a head, over the rate that a large product of matrices reaches on the same device. Only
what the result needs counts: a shared prompt once, the output layer for completion tokens alone, nothing that is computed
again. The time is that of a whole update, the optimizer's step included.

The targets are 60 % for decoding and 45 % for training. TRL's GRPOTrainer runs on the same model through
`benchmarks.vs_trl`. Without a GPU, and without --device cpu, this says so and ends with status 2.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import vs_trl
from benchmarks.scaling import random_groups, run, sampler, seconds, trainer


@dataclass(frozen=True)
class Shape:
    """A model of the Qwen family and what is done with it: `prompts` groups of `group` rollouts."""

    hidden: int = 1536
    layers: int = 28
    heads: int = 12
    kv_heads: int = 2
    intermediate: int = 8960
    vocab: int = 151_936
    prompts: int = 8
    group: int = 8
    prompt_len: int = 512
    max_new: int = 256
    # Bytes copied, and the side of the matrices multiplied, to measure the device.
    block: int = 2**30
    side: int = 8192

    @property
    def rollouts(self) -> int:
        return self.prompts * self.group

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


TINY = Shape(64, 2, 4, 2, 128, 160, prompts=2, group=2, prompt_len=16, max_new=8, block=2**20, side=256)


# arithmetic ------------------------------------------------------------------------------------------------------------


def decode_bytes(shape: Shape, weights: int, itemsize: int) -> float:
    """Bytes that a decoding step reads, the mean over the steps after the first token.

    Args:
        weights: numbers in all weights that a step reads.
        itemsize: bytes of a number.
    """
    # Steps 1 .. max_new - 1 attend to as many tokens of the rollout's own.
    own = shape.rollouts * shape.max_new / 2
    token = 2 * shape.layers * shape.kv_heads * shape.head_dim
    return itemsize * (weights + token * (shape.prompts * shape.prompt_len + own))


def training_flops(shape: Shape, body: int, head: int) -> float:
    """Operations of forward and backward over all groups, each prompt once.

    Args:
        body: weights that every token is multiplied with; head: those of the output layer.
    """
    # The last token of a rollout predicts nothing that is scored.
    suffix, prefix = shape.max_new - 1, shape.prompt_len
    tokens = shape.prompts * (prefix + shape.group * suffix)
    scored = shape.rollouts * shape.max_new
    pairs = shape.prompts * (prefix * (prefix + 1) / 2 + shape.group * (suffix * prefix + suffix * (suffix + 1) / 2))
    return 6 * (body * tokens + head * scored) + 12 * shape.layers * shape.heads * shape.head_dim * pairs


def weights_of(model: Any) -> tuple[int, int]:
    """(body, head): weights of the layers' matrices, and of the output layer; embeddings are looked up, not multiplied."""
    tables = {id(layer.weight): layer.weight for layer in (model.get_input_embeddings(), model.get_output_embeddings())}
    body = sum(p.numel() for p in model.parameters() if p.ndim == 2 and id(p) not in tables)
    return body, model.get_output_embeddings().weight.numel()


# measuring -------------------------------------------------------------------------------------------------------------


def make_model(folder: Path, shape: Shape) -> None:
    """A random Qwen3 of the shape, with the tokenizer of `benchmarks.vs_trl`.

    It has norms of queries and keys where Qwen2 has biases, and the same products of matrices. A Qwen2 would not do, since
    transformers loads no tokenizer for it but Qwen2's own.
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    # Its model is written first, as small as can be, and ours over it.
    vs_trl.make_model(folder, Namespace(**{**vars(sizes(shape)), "hidden": 8, "layers": 1, "heads": 1, "kv_heads": 1}))
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        eos_token_id=0,
        pad_token_id=1,
        tie_word_embeddings=True,
        max_position_embeddings=shape.prompt_len + shape.max_new + 8,
    )
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def sizes(shape: Shape, device: str = "cpu", dtype: str = "bfloat16", steps: int = 5) -> Namespace:
    """The shape as options of `benchmarks.vs_trl`."""
    names = ("hidden", "layers", "heads", "kv_heads", "vocab", "prompt_len", "max_new", "group", "prompts")
    options = [f"--{name.replace('_', '-')}={getattr(shape, name)}" for name in names]
    return vs_trl.parse([*options, f"--steps={steps}", f"--device={device}", f"--dtype={dtype}"])


def limits(shape: Shape, device: str, dtype: Any) -> tuple[float, float]:
    """(bytes a second of a copy, read and written; operations a second of a product of matrices), as measured."""
    import torch

    source = torch.ones(shape.block // dtype.itemsize, dtype=dtype, device=device)
    target = torch.empty_like(source)
    copy = seconds(lambda: target.copy_(source), device)
    left, right = (torch.ones(shape.side, shape.side, dtype=dtype, device=device) for _ in range(2))
    product = seconds(lambda: torch.mm(left, right), device)
    return 2 * shape.block / copy, 2 * shape.side**3 / product


def measure(folder: Path, shape: Shape, device: str, dtype: str) -> dict[str, float]:
    """Decoding and training of cohort, and the shares of what the device can do."""
    import torch

    from cohort.training.config import make_config
    from cohort.training.models import load_policy

    bandwidth, rate = limits(shape, device, getattr(torch, dtype))
    policy = load_policy(make_config({"model": str(folder), "device": device, "dtype": dtype}), lambda _: None)
    body, head = weights_of(policy.model)
    batch, sequences = random_groups(shape.prompts, shape.group, shape.prompt_len, shape.max_new, shape.vocab)
    draw = sampler(policy, sequences.context, shape.max_new)
    draw()  # tries ways of decoding
    first, rest = (statistics.median(times) for times in zip(*(draw() for _ in range(3)), strict=True))
    step = rest / (shape.max_new - 1)
    update = trainer(policy)
    trained = seconds(lambda: update(batch, sequences), device)
    needed = decode_bytes(shape, body + head, policy.dtype.itemsize) / bandwidth
    flops = training_flops(shape, body, head)
    return {
        "bandwidth_gb_per_s": bandwidth / 1e9,
        "matmul_tflops": rate / 1e12,
        "prefill_s": first,
        "decode_tokens_per_s": shape.rollouts / step,
        "decode_share": needed / step,
        "update_s": trained,
        "update_tflops": flops / trained / 1e12,
        "flop_utilisation": flops / trained / rate,
        "peak_mb": vs_trl.peak(),
    }


def parse(arguments: Sequence[str] | None = None) -> Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny model in float32")
    parser.add_argument("--no-trl", action="store_true", help="cohort alone")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of the comparison with TRL (5)")
    parser.add_argument("--json", action="store_true", help="end with one object")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    import torch

    asked = parse(arguments)
    if asked.device != "cpu" and not torch.cuda.is_available():
        print("benchmarks.gpu needs a GPU that torch can use (CUDA); there is none here", file=sys.stderr)
        return 2
    shape, dtype = (TINY, "float32") if asked.tiny else (Shape(), "bfloat16")
    name = "cpu" if asked.device == "cpu" else torch.cuda.get_device_name(asked.device)
    print(f"{name}, torch {torch.__version__}, {shape}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_model(folder, shape)
        found: dict[str, Any] = measure(folder, shape, asked.device, dtype)
        for key, value in found.items():
            print(f"{key:22}{value:14.3f}")
        if not asked.no_trl:
            # The comparison's processes need the device's memory.
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            size = sizes(shape, asked.device, dtype, asked.steps)
            own, other = (run(folder, size, contender) for contender in ("cohort", "trl"))
            for key in own:
                print(f"{key:22}{own[key]:14.3f}{other[key]:14.3f}  (TRL)")
            found.update(
                cohort=own,
                trl=other,
                step_ratio=other["step_s"] / own["step_s"],
                memory_ratio=own["peak_mb"] / other["peak_mb"],
                sample_ratio=own["tokens_per_s"] / other["tokens_per_s"],
            )
            print("  ".join(f"{key} {found[key]:.2f}" for key in ("step_ratio", "memory_ratio", "sample_ratio")))
    if asked.json:
        print(json.dumps({"device": name, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
