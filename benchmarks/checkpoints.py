"""What a checkpoint takes of a step of two ranks: written while the run goes on, and waited for.

    torchrun --nproc-per-node 2 -m benchmarks.checkpoints

A model of 25 million float32 weights (100 MB, with AdamW's moments 300 MB), in parts on the ranks of one machine. A step here
is three passes forward and backward of a batch, and an update.
"""

from __future__ import annotations

import datetime
import json
import statistics
import tempfile
import time
from concurrent.futures import Future
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from transformers import Qwen3Config, Qwen3ForCausalLM

from cohort.distributed.sharding import ShardedLM
from cohort.distributed.storing import Store
from cohort.policies.causal_lm import CausalLM
from cohort.training import checkpoint
from cohort.training.precision import MasterWeights

CONFIG = {
    "vocab_size": 8192,
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "tie_word_embeddings": True,
    "eos_token_id": 1,
}
STEPS = 3


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=datetime.timedelta(minutes=5))
    rank = dist.get_rank()
    torch.manual_seed(0)
    whole = CausalLM(Qwen3ForCausalLM(Qwen3Config(**CONFIG)))
    count = sum(p.numel() for p in whole.trainable())
    mesh = init_device_mesh("cpu", (dist.get_world_size(), 1), mesh_dim_names=("data", "tensor"))
    policy = ShardedLM(whole, mesh)
    optimizer = MasterWeights(policy.trainable(), lambda p: torch.optim.AdamW(p, lr=1e-5))
    store = Store(policy, optimizer, whole)
    actions = policy.actions_after([(2, 3, 4)] * 4, [tuple(range(5, 133))] * 4)

    def step() -> None:
        policy.ready_to_update()
        for _ in range(3):
            policy.log_probs(actions, width=128)["logp"].mean().backward()
        policy.reduce()
        optimizer.step()
        policy.drop()

    folder = [tempfile.mkdtemp() if rank == 0 else ""]
    dist.broadcast_object_list(folder)
    root = Path(folder[0])

    def save(number: int) -> Future[Path] | Future[None]:
        state = store.state_dict()
        if rank:
            return store.save(root / f".tmp-step-{number:06d}" / "model")
        return checkpoint.begin(root, number, store.save, state, keep=1)

    def seconds(way: str, number: int) -> tuple[float, float]:
        """Of a step with a checkpoint, and until it is whole."""
        dist.barrier()
        began = time.perf_counter()
        written = None if way == "without" else save(number)
        if way == "waited for" and written is not None:
            written.result()
            dist.barrier()
        step()
        dist.barrier()
        spent = time.perf_counter() - began
        if written is not None:
            written.result()
        dist.barrier()
        return spent, time.perf_counter() - began

    step()
    found: dict[str, list[tuple[float, float]]] = {"without": [], "waited for": [], "meanwhile": []}
    for number in range(STEPS):
        for place, way in enumerate(found):
            found[way].append(seconds(way, 3 * number + place + 1))
    began = time.perf_counter()
    begun = save(1000)
    staged = time.perf_counter() - began
    begun.result()
    if rank == 0:
        row = {
            way: [round(statistics.median(each), 2) for each in zip(*times, strict=True)]
            for way, times in found.items()
        }
        held = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
        print(json.dumps({"weights": count, "megabytes": held >> 20, "save returns after": round(staged, 2), **row}))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
