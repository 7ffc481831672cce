"""Where a model's numbers stop being numbers is found and named."""

from __future__ import annotations

import pytest
import torch

from cohort.engine.base import Sampling
from cohort.engine.native.engine import NativeEngine
from cohort.errors import Diverged
from cohort.policies.diverging import first_not_finite
from cohort.policies.passes import log_probs
from cohort.policies.sequences import Sequences
from tests.helpers import prompt_of, request_of, tiny_policy


def test_the_first_part_that_is_not_finite_is_named() -> None:
    policy = tiny_policy("llama")
    assert first_not_finite(policy.model, [5, 6, 7]) is None
    with torch.no_grad():
        policy.model.model.layers[1].mlp.up_proj.weight.mul_(1e30)
        policy.model.model.layers[1].mlp.down_proj.weight.mul_(1e30)
    assert first_not_finite(policy.model, [5, 6, 7]) in (
        "the layer model.layers.1.mlp.down_proj",
        "the layer model.layers.1.mlp",
    )
    policy.model.model.layers[0].mlp.up_proj.weight.data[0, 0] = torch.nan
    assert first_not_finite(policy.model, [5, 6, 7]) == "the weight model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=0.0), Sampling(top_p=0.9, top_k=5), Sampling(min_p=0.1)]
)
@pytest.mark.parametrize("mode", ["shared", "whole"])
def test_sampling_and_scoring_say_so(mode: str, sampling: Sampling) -> None:
    policy = tiny_policy("llama")
    policy.forward_mode = mode  # type: ignore[misc]
    requests = [request_of(prompt_of(policy, "1+1="), seed=seed) for seed in range(3)]
    made = NativeEngine(policy)
    assert len(list(made.generate(requests, sampling))) == 3
    with torch.no_grad():
        policy.model.model.layers[1].mlp.up_proj.weight.fill_(torch.nan)
    with pytest.raises(
        Diverged, match=r"not finite while sampling: .* is the weight model\.layers\.1\.mlp\.up_proj\.weight"
    ):
        list(made.generate(requests, sampling))
    sequences = Sequences((torch.tensor([5, 6]),), (torch.tensor([7, 8]),))
    with pytest.raises(Diverged, match=r"not finite while scoring"):
        log_probs(policy, sequences, width=2, temperature=1.0, micro_tokens=100)
