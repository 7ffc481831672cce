"""Settings that no machine, or not this one, can work with: refused before anything is loaded, with what would fit."""

from __future__ import annotations

import os
from typing import Any

import torch

from cohort.errors import UsageError
from cohort.policies.roles import has_adapter
from cohort.training.config import TrainConfig
from cohort.training.memory import total
from cohort.training.offline import is_offline

# Of a rollout and of each of its tokens in Python and in a batch. Few rollouts take all the tokens that they may.
ROLLOUT_BYTES, TOKEN_BYTES = 2048, 32
# Threads above the machine's: a little is harmless, thousands end the process.
THREADS_OVER = 4


def check_sizes(config: TrainConfig) -> None:
    """A step's rollouts fit into the memory of this machine, and threads and processors go together.

    Raises:
        UsageError: they do not; says which numbers would.
    """
    cores = os.cpu_count() or 1
    if config.machine.threads > max(64, THREADS_OVER * cores):
        raise UsageError(
            f"threads is {config.machine.threads}, but this machine has {cores} processors: take at most {cores}"
        )
    sampling = config.sampling
    memory, each = total(), ROLLOUT_BYTES + TOKEN_BYTES * sampling.max_new_tokens
    group = 1 if is_offline(config) else sampling.group_size
    if sampling.prompts_per_step * group * each <= memory:
        return
    fit = memory // each
    prompts, rollouts = fit // group, fit // sampling.prompts_per_step
    ways = [f"prompts_per_step to at most {prompts}"] if prompts else []
    ways += [f"group_size to at most {rollouts}"] if group > 1 and rollouts > 1 else []
    tokens = (memory // (sampling.prompts_per_step * group) - ROLLOUT_BYTES) // TOKEN_BYTES
    ways += [f"max_new_tokens to at most {tokens}"] if tokens > 0 and not ways else []
    raise UsageError(
        f"a step of {sampling.prompts_per_step} prompts with {group} rollouts each (prompts_per_step, group_size) of up to "
        f"{sampling.max_new_tokens} tokens does not fit into this machine's memory ({memory / 1e9:.0f} GB), which holds about "
        f"{fit} of them: lower {' or '.join(ways) or 'both'}"
    )


def check_rank(model: Any, rank: int, name: str) -> None:
    """Low-rank adapters are no wider than the layers that they adapt.

    Raises:
        UsageError: they are; says the largest rank that means something.
    """
    head = model.get_output_embeddings()
    shapes = [
        tuple(module.weight.shape)
        for module in model.modules()
        if module is not head and (isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D")
    ]
    most = max((min(shape) for shape in shapes), default=rank)
    if rank > most:
        raise UsageError(
            f"lora is {rank}, but the layers of {name} have at most {most} rows or columns: a rank above {most} adds nothing; "
            "8 to 64 is usual"
        )


def check_shared(model: Any, size: int, name: str = "") -> None:
    """A model's layers can be computed by so many processes together (see distributed/tensor_parallel.py).

    Raises:
        UsageError: it cannot.
    """
    # It takes torch.distributed, which one process does without.
    from transformers.distributed.tensor_parallel import get_kv_heads_per_rank

    told = f"tensor_parallel {size}: {name or 'the model'}"
    if has_adapter(model):
        raise UsageError(f"{told} is trained by adapters, which transformers has no plan for: leave --lora or it out")
    if not getattr(model, "tp_plan", None):
        raise UsageError(
            f"{told} is a {type(model).__name__}, for which transformers has no plan: leave tensor_parallel out; "
            "shard: parameters also takes less memory"
        )
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    keys = getattr(config, "num_key_value_heads", None) or heads
    if heads % size or get_kv_heads_per_rank(model.tp_plan, keys, size) is None:
        raise UsageError(
            f"{told} has {heads} attention heads and {keys} of keys, which {size} processes cannot share evenly: take a "
            "divisor of both"
        )
