"""What tokens were drawn over, and scoring over the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.policies import head
from cohort.policies.sequences import Sequences
from cohort.types.support import Flat, Rule, Support, candidate_sets, concatenated, excluded
from tests.helpers import tiny_policy

V = 102


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.0, 1.0), width=st.integers(1, 200))
def test_sets_come_back_whatever_their_size(seed: int, share: float, width: int) -> None:
    keep = torch.rand(4, width, generator=torch.Generator().manual_seed(seed)) < share
    sets = candidate_sets(keep)
    assert torch.equal(~excluded(sets, width), keep)
    # None of them takes more room than a bit for every token, beyond a byte.
    assert all(held.nbytes <= width // 8 + 1 for held in sets)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_support_comes_back_from_a_checkpoint(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    g = torch.Generator().manual_seed(seed)
    keep = torch.rand(5, V, generator=g) < torch.rand(5, 1, generator=g) * 0.1
    support = Support(Rule({3: 1.5}, 2, frozenset({1, 2})), [*candidate_sets(keep), None])
    path = tmp_path_factory.mktemp("state") / "state.pt"
    torch.save(support.state(), path)
    again = Support.of_state(torch.load(path, weights_only=True))
    assert again.rule == support.rule
    assert again.candidates is not None
    assert again.candidates[-1] is None
    assert torch.equal(excluded(again.candidates, V), excluded(support.candidates or [], V))
    assert Support.of_state(Support(support.rule).state()) == Support(support.rule)


def test_rollouts_put_together_keep_what_each_part_was_drawn_over() -> None:
    rule = Rule()
    a, b = ([np.array([i], np.int32) for i in range(start, start + 4)] for start in (0, 10))
    both = concatenated([(2, Support(rule, list(a)).cut(2)), (4, Support(rule, list(b)))])
    assert both is not None
    assert [int(k[0]) for k in both.candidates or [] if k is not None] == [0, 1, 10, 11, 12, 13]
    assert concatenated([(2, None), (3, None)]) is None
    late = concatenated([(2, Support(rule)), (1, None), (4, Support(rule, list(b)))])
    assert late is not None
    assert late.candidates is not None
    assert late.candidates[:3] == [None] * 3
    assert len(late.candidates) == 7
    cut = both.cut(1)
    assert [len(k) for k in cut.candidates or [] if k is not None] == [1]


def naive(logits: torch.Tensor, token: int, column: int, support: Support | None, temperature: float):
    """Log-probability, entropy and logits of a token, as a loop over the vocabulary."""
    allowed = list(range(V))
    if support is not None:
        for key, value in support.rule.bias.items():
            logits = logits + value * torch.nn.functional.one_hot(torch.tensor(key), V)
        if column < support.rule.min_new_tokens:
            allowed = [i for i in allowed if i not in support.rule.stop_ids or i == token]
        if support.candidates is not None and (held := support.candidates[column]) is not None:
            candidates = set((~excluded([held], V)[0]).nonzero()[:, 0].tolist()) | {token}
            allowed = [i for i in allowed if i in candidates]
    log_probs = (logits[allowed] / temperature).log_softmax(-1)
    return log_probs[allowed.index(token)], -(log_probs.exp() * log_probs).sum(), allowed


@pytest.mark.parametrize("chunk", [V * 3, 10**9])
def test_scores_over_a_support_and_their_gradient_are_those_of_the_definition(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in chunks whose logits are made again, and beside texts that nobody drew."""
    monkeypatch.setattr(head, "MOST_LOGITS", chunk)
    policy = tiny_policy(dtype=torch.float64)
    g = torch.Generator().manual_seed(1)
    completions = tuple(torch.randint(5, 90, (n,), generator=g) for n in (5, 3, 6, 4))
    contexts = tuple(torch.randint(5, 90, (n,), generator=g) for n in (3, 4, 2, 3))

    def sets(count: int, share: float) -> list:
        return candidate_sets(torch.rand(count, V, generator=g) < share)

    rule = Rule({7: 1.0, 50: -2.0}, 3, frozenset({1, int(completions[0][1]), 60}))
    supports = (Support(rule, sets(5, 0.02)), None, Support(rule), Support(Rule(), [*sets(3, 0.6), None]))
    want = frozenset({"logp", "entropy"})
    scored = policy.log_probs(Sequences(contexts, completions, supports), width=6, temperature=0.7, want=want)
    weight = torch.randn(2, 4, 6, generator=g, dtype=torch.float64)
    (weight[0] * scored["logp"] + weight[1] * scored["entropy"]).sum().backward()
    grads = {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}
    policy.model.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for i, (context, completion) in enumerate(zip(contexts, completions, strict=True)):
        whole = policy.model(input_ids=torch.cat([context, completion])[None]).logits[0, len(context) - 1 : -1].double()
        for j, token in enumerate(completion.tolist()):
            logp, entropy, _ = naive(whole[j], token, j, supports[i], 0.7)
            assert scored["logp"][i, j].item() == pytest.approx(logp.item(), abs=1e-9)
            assert scored["entropy"][i, j].item() == pytest.approx(entropy.item(), abs=1e-9)
            total = total + weight[0, i, j] * logp + weight[1, i, j] * entropy
    total.backward()
    for name, p in policy.model.named_parameters():
        assert torch.allclose(grads[name], p.grad, atol=1e-9), name


def test_logits_outside_the_support_have_no_probability_and_finite_differences() -> None:
    policy = tiny_policy()
    completion = torch.tensor([5, 6, 7])
    support = Support(Rule(), candidate_sets(torch.arange(V).expand(3, V) % 9 == 0))
    sequences = Sequences((torch.tensor([9, 8]),), (completion,), (support,))
    logits = policy.log_probs(sequences, width=3, want=frozenset({"logits"}))["logits"][0]
    log_probs = logits.log_softmax(-1)
    inside = (torch.arange(V) % 9 == 0).expand(3, V).scatter(1, completion[:, None], True)
    assert (log_probs.exp()[~inside] == 0).all()
    assert (logits - logits.flip(0)).isfinite().all()
    ((log_probs.exp() * (log_probs - log_probs.detach().flip(0))).sum()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in policy.trainable())


def test_nothing_is_computed_where_nothing_was_left_out() -> None:
    row = torch.tensor([0, 0, 1])
    assert Flat.of((), row, row) is None
    assert Flat.of((None, None), row, row) is None
    assert Rule(min_new_tokens=5).free
    assert not Rule(min_new_tokens=5, stop_ids=frozenset({1})).free
