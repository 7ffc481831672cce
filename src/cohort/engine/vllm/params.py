"""How requests are drawn, in vLLM's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cohort.engine.base import Sampling
from cohort.errors import UsageError
from cohort.types import Request


def parameters(
    sampling: Sampling, stop_ids: frozenset[int], *, seed: int, count: int, masked: bool = False
) -> dict[str, Any]:
    """Arguments of vLLM's `SamplingParams`.

    Everything that changes the distribution is said: a server fills in from the model's generation configuration what a
    request leaves out, a repetition penalty for example.

    Args:
        masked: vLLM reports the tokens that truncation kept, and then takes no request without top-k, not even a greedy one.
    """
    greedy = sampling.greedy
    one = greedy and masked
    out: dict[str, Any] = {
        "n": 1,
        "seed": seed,
        "max_tokens": count,
        "logprobs": 0,
        "temperature": 1.0 if one else sampling.temperature,
        "top_p": 1.0 if greedy else sampling.top_p,
        "top_k": 1 if one else -1 if greedy or sampling.top_k == 0 else sampling.top_k,
        "min_p": 0.0 if greedy else sampling.min_p,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        # The stop tokens are those of the run, whatever the model's generation configuration says.
        "ignore_eos": True,
        "stop_token_ids": sorted(stop_ids),
    }
    if sampling.stop:
        out["stop"] = list(sampling.stop)
    if sampling.logit_bias:
        out["logit_bias"] = dict(sampling.logit_bias)
    return out


def check_request(request: Request) -> None:
    """vLLM can draw it, as far as that does not depend on where it runs.

    Raises:
        UsageError: it cannot.
    """
    if request.processor is not None:
        raise UsageError(
            "the method draws every token at a temperature of its own, which vLLM cannot: use --engine native"
        )
    if request.mixer is not None:
        raise UsageError("the method draws soft steps, which vLLM cannot: use --engine native")


def check_sampling(sampling: Sampling) -> None:
    """vLLM can draw so and report what the trainer needs to know of it.

    Raises:
        UsageError: it cannot.
    """
    if sampling.truncated and sampling.top_k == 0:
        raise UsageError(
            "vLLM reports which tokens top-p and min-p kept only where top-k bounds their number, and without that the "
            "trainer could not score what was drawn: set top_k too (1000 is as good as none), or use --engine native"
        )
    if any(not -100.0 <= bias <= 100.0 for bias in sampling.logit_bias.values()):
        raise UsageError("vLLM takes a logit bias from -100 to 100: bring logit_bias within, or use --engine native")


def plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as JSON takes them: its keys are texts."""
    out = dict(params)
    if "logit_bias" in out:
        out["logit_bias"] = {str(token): bias for token, bias in out["logit_bias"].items()}
    return out
