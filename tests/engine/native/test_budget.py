"""A bound on the memory of keys and values, and what happens when memory runs out all the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch

from cohort.engine.base import Sampling
from cohort.engine.native.budget import token_bytes
from cohort.engine.native.cached import CachedDecoder
from cohort.engine.native.engine import NativeEngine
from cohort.engine.native.shared import SharedDecoder
from cohort.errors import UsageError
from cohort.policies.causal_lm import CausalLM
from cohort.types import Prompt, Request
from tests.helpers import tiny_policy

DECODERS = {"shared": SharedDecoder, "padded": CachedDecoder}


def requests() -> list[Request]:
    prompts = [Prompt(f"p{n}", "", tuple(range(3, 3 + n)), "") for n in (5, 9, 14)]
    return [Request(p, p.tokens, 10 * i + k, 70) for i, p in enumerate(prompts) for k in range(4)]


def drawn(engine: NativeEngine) -> dict[int, list[int]]:
    done = engine.generate(requests(), Sampling())
    return {place: completion.tokens for place, completion in done}


@pytest.fixture(params=DECODERS)
def policy(request: pytest.FixtureRequest) -> CausalLM:
    made = tiny_policy()
    made.__dict__["forward_mode"] = request.param
    return made


def stored_bytes(decoder: SharedDecoder) -> int:
    pairs = [*decoder.prefixes.stacked, *decoder.own]
    return sum(tensor.numel() * tensor.element_size() for pair in pairs for tensor in pair)


def test_a_bound_is_kept_and_changes_no_token(policy: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    free = drawn(NativeEngine(policy))
    bound = 3 * (14 + 128) * token_bytes(policy)
    most = []
    forward = SharedDecoder._forward

    def watched(self: SharedDecoder) -> torch.Tensor:
        out = forward(self)
        most.append(stored_bytes(self))
        return out

    monkeypatch.setattr(SharedDecoder, "_forward", watched)
    assert drawn(NativeEngine(policy, cache_mb=bound / 1e6)) == free
    if policy.forward_mode == "shared":
        assert 0 < max(most) <= bound
        most.clear()
        drawn(NativeEngine(policy))
        assert max(most) > bound


def test_a_bound_that_is_too_small_says_what_is_needed(policy: CausalLM) -> None:
    need = (14 + 128) * token_bytes(policy) / 1e6
    with pytest.raises(UsageError, match=rf"too small for one rollout: 14 tokens of context .* take {need:.1f} MB"):
        drawn(NativeEngine(policy, cache_mb=0.9 * need))
    assert len(drawn(NativeEngine(policy, cache_mb=1.001 * need))) == 12


def failing(times: int) -> Callable[..., torch.Tensor]:
    """A forward pass that runs out of memory while more than so many rows are decoded."""
    forward = SharedDecoder._forward

    def guarded(self: SharedDecoder) -> torch.Tensor:
        if len(self.owner) > times and int(self.count.max()) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self)

    return guarded


def test_running_out_of_memory_halves_the_slots_and_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = NativeEngine(tiny_policy())
    whole = drawn(engine)
    monkeypatch.setattr(SharedDecoder, "_forward", failing(4))
    with pytest.warns(RuntimeWarning, match="going on with 3 rollouts at once"):
        assert drawn(engine) == whole
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawn(engine) == whole  # it has learnt how many fit


def test_one_rollout_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = NativeEngine(tiny_policy())
    assert engine.kind  # found out before memory runs out
    monkeypatch.setattr(SharedDecoder, "_forward", failing(0))
    with pytest.warns(RuntimeWarning), pytest.raises(torch.OutOfMemoryError):
        drawn(engine)


def test_a_model_that_cannot_share_prompts_is_said_once(policy: CausalLM) -> None:
    engine = NativeEngine(policy)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            drawn(engine)
    found = [str(each.message) for each in said if "transformers' own cache" in str(each.message)]
    assert len(found) == (0 if policy.forward_mode == "shared" else 1)
