"""Compiling a policy's layers with torch.compile, and what that costs."""

from __future__ import annotations

import time

import torch
from torch import Tensor
from transformers import AttentionInterface

from cohort.errors import UsageError
from cohort.policies import attention, stream
from cohort.policies.activations import Compiled, layers_of
from cohort.policies.causal_lm import CausalLM
from cohort.policies.sequences import Sequences


def compile_layers(policy: CausalLM, *, backend: str = "inductor") -> float:
    """Have passes of the policy go through compiled layers, and return the seconds that compiling took.

    All is compiled here, on a few tokens, for rows of any length, with and without gradient; the seconds are those of a
    first pass less those of a second. Attention in packed rows has loops of its own and is called as it is.

    Args:
        backend: of torch.compile.

    Raises:
        UsageError: torch.compile does not work here or gives other numbers; the policy is as it was.
    """
    if policy.forward_mode != "shared" or not layers_of(policy.base):
        raise UsageError(
            f"compile: {policy.name or 'the model'} has no layers that could be compiled by themselves; set compile to false"
        )
    for name, function in ((attention.NAME, attention.shared_prefix_attention), (stream.NAME, stream.stream_attention)):
        AttentionInterface.register(name, torch.compiler.disable(function))
    tokens = torch.arange(2, 8)
    probe = Sequences((tokens[:5], tokens[:5], tokens[2:5]), (tokens[1:5], tokens[2:5], tokens[:3]))

    def passes() -> list[Tensor]:
        with torch.no_grad():
            first = policy.log_probs(probe, width=4)["logp"]
        with torch.enable_grad():
            second = policy.log_probs(probe, width=4)["logp"]
        return [first, second.detach(), *torch.autograd.grad(second.sum(), policy.trainable(), allow_unused=True)]

    try:
        policy.compiled, right = None, passes()
        policy.compiled = Compiled(backend)
        marks = [time.perf_counter()]
        for _ in range(2):
            found = passes()
            marks.append(time.perf_counter())
    except Exception as error:
        policy.compiled = None
        text = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise UsageError(
            f"compile: torch.compile fails here ({type(error).__name__}: {text}); it needs a C++ compiler, on a GPU Triton: "
            "install them, or set compile to false"
        ) from error
    near = {torch.float64: 1e-6, torch.float32: 1e-3}.get(policy.dtype, 0.05)
    for a, b in zip(found, right, strict=True):
        if a is not None and float((a - b).abs().max()) > near * (1.0 + float(b.abs().max())):
            policy.compiled = None
            raise UsageError(
                f"compile: compiled, {policy.name or 'the model'} gives other numbers; set compile to false"
            )
    return max(0.0, (marks[1] - marks[0]) - (marks[2] - marks[1]))
