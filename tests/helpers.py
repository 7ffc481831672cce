"""Small models and batches that tests make for themselves."""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cohort.engine.native import building, fused
from cohort.policies.causal_lm import CausalLM
from cohort.policies.toy import tokenizer
from cohort.rewards.judge import ask
from cohort.types import Batch, Prompt, Request, Rollout, Segment, StepInfo
from cohort.types.access import ModelAccess

SIZES = {
    "vocab_size": 102,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "bos_token_id": 2,
}


def tiny_config(kind: str) -> Any:
    """Configuration of a random model of a few thousand parameters."""
    import transformers as tf

    if kind == "gpt2":
        return tf.GPT2Config(
            vocab_size=102,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=128,
            eos_token_id=1,
            bos_token_id=2,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    makers = {
        "llama": tf.LlamaConfig,
        "qwen2": tf.Qwen2Config,
        "qwen3": tf.Qwen3Config,
        "gemma": tf.GemmaConfig,
        "gemma2": tf.Gemma2Config,
        "gemma3": tf.Gemma3TextConfig,
        "mistral": tf.MistralConfig,
        "phi3": tf.Phi3Config,
    }
    extra: dict[str, Any] = {}
    if kind in ("qwen3", "gemma", "gemma2", "gemma3"):
        extra["head_dim"] = 8
    if kind in ("gemma2", "gemma3", "mistral"):
        extra["sliding_window"] = 6
    return makers[kind](**SIZES, **extra)


def tiny_policy(kind: str = "qwen3", *, seed: int = 0, dtype: torch.dtype = torch.float32) -> CausalLM:
    """A random model of a kind of transformers, with the character tokenizer."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(kind)).to(dtype)
    # As initialised, logits are near 0 and everything is nearly uniform; larger weights make differences show.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)
    return CausalLM(model, tokenizer(), name=f"tiny {kind}")


class _Norm(torch.nn.Module):
    """RMS normalisation in the precision of its input; transformers' own casts to float32."""

    def __init__(self, norm: Any, offset: float) -> None:
        super().__init__()
        self.weight, self.offset = norm.weight, offset
        self.eps = norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * (self.offset + self.weight)


def in_float64(policy: CausalLM) -> CausalLM:
    """The policy in float64 throughout, also where transformers would cast to float32."""
    models = [*policy.roles.models.values()]
    for model in models:
        model.double()
    for parent in [module for model in models for module in model.modules()]:
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                # Gemma's weights are offsets from 1.
                setattr(parent, name, _Norm(child, 1.0 if type(child).__name__.startswith("Gemma") else 0.0))
    return policy


def compiled() -> bool:
    """Whether there is compiled code for decoding steps: it takes a C compiler, which need not be there."""
    try:
        fused.code()
    except building.Unavailable:
        return False
    return (sys.platform, platform.machine()) == fused.MEASURED


def prompt_of(policy: CausalLM, text: str, **row: Any) -> Prompt:
    rendered = policy.renderer.render(text)
    return Prompt(rendered, rendered, policy.renderer.encode(rendered, start=True), text, row)


def request_of(prompt: Prompt, *, seed: int = 0, count: int = 12, prefix: tuple[int, ...] = ()) -> Request:
    return Request(prompt, prompt.tokens, seed, count, (Segment(prefix, "method"),) if prefix else ())


def random_batch(
    seed: int = 0,
    *,
    groups: tuple[int, ...] = (4, 4, 4),
    width: int = 6,
    binary: bool = True,
    dtype: torch.dtype = torch.float64,
    interleave: bool = True,
    empty: bool = True,
    drift: float = 0.3,
    components: int = 2,
) -> Batch:
    """A batch with every core field, interleaved groups, holes in the mask and garbage under it."""
    g = torch.Generator().manual_seed(seed)
    count = sum(groups)
    group = torch.cat([torch.full((n,), i) for i, n in enumerate(groups)])
    if interleave:
        group = group[torch.randperm(count, generator=g)]
    lengths = torch.randint(1, width + 1, (count,), generator=g)
    if empty and count > 2:
        lengths[int(torch.randint(count, (1,), generator=g))] = 0
    mask = torch.arange(width) < lengths[:, None]
    holes = torch.rand(count, width, generator=g) < 0.1
    holes[:, 0] = False
    mask = mask & ~holes

    def tokens(scale: float, shift: float = 0.0) -> Tensor:
        return torch.randn(count, width, generator=g, dtype=dtype) * scale + shift

    old = -tokens(0.7).abs() - 0.05
    garbage = torch.where(mask, torch.zeros((), dtype=dtype), torch.tensor(1e6, dtype=dtype))
    rewards = torch.randint(0, 2, (count,), generator=g).to(dtype)
    parts = torch.rand(count, components, generator=g, dtype=dtype)
    parts[:, 0] = rewards
    entropy = tokens(0.5).abs() + garbage
    batch = Batch.of(
        mask,
        group=group,
        rewards=rewards if binary else torch.randn(count, generator=g, dtype=dtype),
        accuracy=rewards,
        reward_components=parts,
        logp=old + drift * tokens(1.0) + garbage,
        old_logp=old - garbage,
        ref_logp=old + 0.2 * tokens(1.0) - garbage,
        sampler_logp=old + garbage,
        entropy=entropy,
        old_entropy=entropy.clone(),
        token_ids=torch.randint(0, 5, (count, width), generator=g),
        truncated=torch.zeros(count, dtype=dtype),
    )
    return batch.with_rollouts(row=group.clone())


def info_of(batch: Batch, *named: str, **changes: Any) -> StepInfo:
    """The fourth of ten steps of a run whose rewards are reward0, reward1, ... and then those named, of weight 0."""
    parts = batch.get("reward_components")
    count = 0 if parts is None else parts.shape[1] - len(named)
    info = StepInfo(
        step=3,
        steps=10,
        lr=1e-3,
        reward_names=(*(f"reward{i}" for i in range(count)), *named),
        reward_weights=(*[1.0] * count, *[0.0] * len(named)),
        max_new_tokens=batch.mask.shape[1],
    )
    return replace(info, **changes)


def with_rewards(batch: Batch, *values: Tensor) -> Batch:
    """The batch with further reward components [N] after its own."""
    held = [batch["reward_components"]] if "reward_components" in batch else []
    return batch.replace(reward_components=torch.cat([*held, *(value[:, None] for value in values)], 1))


def rollout_of(request: Request, tokens: list[int], **changes: Any) -> Rollout:
    """A rollout with made-up numbers."""
    segment = Segment(tuple(tokens), logp=(-1.0,) * len(tokens), entropy=(0.5,) * len(tokens))
    return Rollout(request, (segment,), **changes)


def access_of(
    texts: Sequence[str],
    *,
    groups: Sequence[int] | None = None,
    columns: Sequence[dict[str, Any]] | None = None,
    log_probs: Any = None,
) -> ModelAccess:
    """What an `on_scored` hook is lent for completions with these texts, written by the character tokenizer, and ended.

    Args:
        groups: label of each completion's prompt; one prompt for all if None.
        columns: further columns of each completion's row.
        log_probs: stands in for passes of the models.
    """
    words = tokenizer()
    labels = list(groups or [0] * len(texts))
    extra = list(columns or [{}] * len(texts))

    def encode(text: str) -> tuple[int, ...]:
        return tuple(words(text, add_special_tokens=False)["input_ids"])

    def decode(tokens: Sequence[int]) -> str:
        return str(words.decode(list(tokens), skip_special_tokens=True))

    rollouts = []
    for text, label, row in zip(texts, labels, extra, strict=True):
        context = encode(f"question {label}")
        prompt = Prompt(str(label), f"question {label}", context, f"question {label}", row)
        rollouts.append(rollout_of(request_of(prompt), [*encode(text), words.eos_token_id], text=text))
    return ModelAccess(
        rollouts=rollouts,
        log_probs=log_probs,
        states=lambda *_, **__: [],
        head=lambda: torch.empty(0),
        encode=encode,
        decode=decode,
        render=lambda _: encode("q"),
        judge=ask,
    )
