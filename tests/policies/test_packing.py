"""Shared-prefix scoring equals scoring every sequence by itself, in value and gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cohort.policies import attention, head, packing, trees
from cohort.policies.attention import Layout, Share, shared_prefix_attention
from cohort.policies.causal_lm import CausalLM
from cohort.policies.packing import pack, packs
from cohort.policies.sequences import Sequences
from tests.helpers import in_float64, tiny_policy

KINDS = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "mistral", "phi3", "gpt2")


def dense(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float, softcap: float | None, window: int | None
) -> Tensor:
    """Every query against the keys it may see, by one large mask: [N, H, D]."""
    repeats = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(repeats, 0), v.repeat_interleave(repeats, 0)
    seen = torch.zeros(q.shape[1], q.shape[1], dtype=torch.bool)
    for share in layout.shares:
        for i in range(share.start, share.middle):
            seen[i, share.start : i + 1] = True
        at = share.middle
        for count in share.suffixes:
            for i in range(at, at + count):
                for start, stop in share.before or ((share.start, share.middle),):
                    seen[i, start:stop] = True
                seen[i, at : i + 1] = True
            at += count
    positions = layout.positions()
    if window is not None:
        seen &= positions[:, None] - positions < window
    scores = q @ k.transpose(1, 2) * scale
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    return (scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v).transpose(0, 1)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shares=st.lists(
        st.tuples(st.integers(1, 6), st.lists(st.integers(0, 5), min_size=1, max_size=4)), min_size=1, max_size=3
    ),
    heads=st.sampled_from([(4, 4), (4, 2), (3, 1)]),
    softcap=st.sampled_from([None, 2.0]),
    window=st.sampled_from([None, 1, 3, 7]),
    copied=st.sampled_from([0, 2]),
    below=st.booleans(),
)
def test_attention_is_that_of_each_rollout_alone(
    seed: int,
    shares: list[tuple[int, list[int]]],
    heads: tuple[int, int],
    softcap: float | None,
    window: int | None,
    copied: int,
    below: bool,
) -> None:
    at, made = 0, []
    for length, suffixes in shares:
        made.append(Share(at, length, tuple(suffixes)))
        at = made[-1].end
        if below:
            # What follows the last suffix: behind the prefix and that.
            share = made[-1]
            before = ((share.start, share.middle), (share.end - suffixes[-1], share.end))
            made.append(Share(at, 0, (2, *suffixes), before))
            at = made[-1].end
    layout = Layout(tuple(made), torch.device("cpu"))
    g = torch.Generator().manual_seed(seed)
    q, k, v = (
        torch.randn(n, at, 4, generator=g, dtype=torch.float64).requires_grad_() for n in (heads[0], heads[1], heads[1])
    )
    token = attention._layout.set(layout)
    # Small blocks, so that their borders are crossed.
    names = ("QUERY_BLOCK", "MOST_SCORES", "COPIED")
    before = [getattr(attention, name) for name in names]
    attention.QUERY_BLOCK, attention.MOST_SCORES, attention.COPIED = 2, 20, copied
    try:
        out, _ = shared_prefix_attention(
            None, q[None], k[None], v[None], None, scaling=0.4, softcap=softcap, sliding_window=window
        )
        expected = dense(q, k, v, layout, 0.4, softcap, window)
        probe = torch.randn(out[0].shape, generator=g, dtype=torch.float64)
        got = torch.autograd.grad((out[0] * probe).sum(), (q, k, v))
    finally:
        attention.QUERY_BLOCK, attention.MOST_SCORES, attention.COPIED = before
        attention._layout.reset(token)
    want = torch.autograd.grad((expected * probe).sum(), (q, k, v))
    assert torch.allclose(out[0], expected, atol=1e-10)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(got, want, strict=True))


@pytest.fixture(autouse=True)
def _always_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Share also where it would not pay: the models here are tiny."""
    monkeypatch.setattr(packing, "SHARE_SECONDS", -1e9)


def sequences(seed: int = 0) -> Sequences:
    """Rollouts of three prompts, interleaved, of unequal number and length, one of them empty."""
    g = torch.Generator().manual_seed(seed)
    contexts = [torch.randint(6, 90, (n,), generator=g) for n in (9, 1, 12)]
    lengths = (7, 3, 11, 4, 1, 0, 5)
    return Sequences(
        tuple(contexts[i] for i in (0, 1, 0, 2, 0, 1, 1)),
        tuple(torch.randint(6, 90, (n,), generator=g) for n in lengths),
    )


def scored(policy: CausalLM, mode: str, given: Sequences) -> tuple[dict[str, Tensor], list[Tensor]]:
    vars(policy)["forward_mode"] = mode
    out = policy.log_probs(given, width=12, temperature=0.8, want=frozenset({"logp", "entropy"}))
    g = torch.Generator().manual_seed(1)
    loss = sum(
        (torch.randn(v.shape, generator=g, dtype=torch.float64).to(v.dtype) * v).sum() for _, v in sorted(out.items())
    )
    assert isinstance(loss, Tensor)
    grads = torch.autograd.grad(loss, policy.trainable(), allow_unused=True, materialize_grads=True)
    return {name: value.detach() for name, value in out.items()}, list(grads)


def largest(pairs: Any) -> float:
    """Largest difference, relative to the largest value."""
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-3)) for a, b in pairs)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_shared_scoring_equals_the_models_own(kind: str, lora: bool) -> None:
    policy = tiny_policy(kind)
    if lora:
        torch.manual_seed(0)
        policy.add_lora(2)
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    in_float64(policy)
    assert policy.forward_mode == "shared"
    whole, whole_grads = scored(policy, "whole", sequences())
    # The eager attention that Gemma 2 needs for its soft cap takes its softmax in float32.
    near = 1e-6 if kind == "gemma2" else 1e-9
    for mode in ("shared", "padded"):
        got, grads = scored(policy, mode, sequences())
        assert largest((got[name], whole[name]) for name in whole) < near, mode
        assert largest(zip(grads, whole_grads, strict=True)) < near, mode


@pytest.mark.parametrize("kind", KINDS)
def test_in_float32_they_agree_to_rounding(kind: str) -> None:
    policy = tiny_policy(kind)
    whole, whole_grads = scored(policy, "whole", sequences(3))
    got, grads = scored(policy, "shared", sequences(3))
    assert largest((got[name], whole[name]) for name in whole) < 1e-5
    assert largest(zip(grads, whole_grads, strict=True)) < 1e-5


@pytest.mark.parametrize("kind", ["qwen3", "mistral"])
def test_a_group_cut_by_a_filter_scores_as_before(kind: str) -> None:
    policy = in_float64(tiny_policy(kind))
    rows = torch.tensor([4, 0, 3])
    whole = policy.log_probs(sequences(), width=12)["logp"]
    assert torch.allclose(policy.log_probs(sequences().select(rows), width=12)["logp"], whole[rows], atol=1e-9)


def test_sharing_pays_for_long_prompts_and_not_for_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    def prompts(count: int, length: int) -> Sequences:
        contexts = tuple(torch.full((length,), 2 + i) for i in range(count) for _ in range(8))
        return Sequences(contexts, tuple(torch.arange(10) for _ in contexts))

    assert packing.pays(prompts(4, 500), 256)
    assert not packing.pays(prompts(24, 16), 128)


def test_a_context_is_held_once() -> None:
    row = pack(sequences(), torch.device("cpu"))
    # The last token of a completion predicts nothing, so it is left out.
    assert len(row.ids) == (9 + 1 + 12) + (7 + 11 + 1 + 3 + 5 + 4) - 6
    assert len(row.tokens) == 7 + 3 + 11 + 4 + 1 + 5
    assert row.layout.positions().tolist()[:16] == [*range(9), *range(9, 15), 9]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), budget=st.integers(1, 80))
def test_packs_hold_every_sequence_once_within_the_budget(seed: int, budget: int) -> None:
    given_ = sequences(seed)
    made = packs(given_, budget)
    assert sorted(i for rows in made for i in rows.tolist()) == list(range(len(given_)))
    for rows in made:
        held = given_.select(rows)
        contexts = {c.numpy().tobytes(): len(c) for c in held.context}
        bound = max(budget, 3 * max(contexts.values()))
        assert len(rows) == 1 or sum(contexts.values()) + sum(map(len, held.completion)) <= bound
    assert len(packs(given_, 10**6)) == 1


def test_the_output_layer_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = in_float64(tiny_policy("llama"))
    whole, whole_grads = scored(policy, "shared", sequences())
    monkeypatch.setattr(head, "MOST_LOGITS", 3 * 102)
    chunks, grads = scored(policy, "shared", sequences())
    assert largest((chunks[name], whole[name]) for name in whole) < 1e-12
    assert largest(zip(grads, whole_grads, strict=True)) < 1e-12


def test_a_model_that_shares_nothing_is_scored_by_itself() -> None:
    """Where positions mix outside attention, the tokens tried give it away."""
    policy = in_float64(tiny_policy("gpt2"))
    layer = policy.model.transformer.h[0].mlp
    inner = layer.forward
    layer.forward = lambda x: inner(x + torch.nn.functional.pad(x, (0, 0, 1, 0))[:, :-1])
    assert policy.forward_mode == "padded"
    whole, _ = scored(policy, "whole", sequences())
    got, _ = scored(policy, "padded", sequences())
    assert largest((got[name], whole[name]) for name in whole) < 1e-12


def test_a_context_longer_than_the_budget_is_not_computed_for_each_few_rollouts() -> None:
    context = torch.arange(100)
    given_ = Sequences((context,) * 16, tuple(torch.arange(i, i + 24) for i in range(16)))
    assert [len(rows) for rows in packs(given_, 110)] == [8, 8]
    assert [len(rows) for rows in packs(given_, 64)] == [8, 8]


# trees ------------------------------------------------------------------------------------------------------------------


def branching(seed: int = 0, *, width: int = 3, segment: int = 9) -> tuple[Sequences, int]:
    """The edges of a tree of three levels behind a prompt, each after its parent's text, and the tokens of the tree."""
    g = torch.Generator().manual_seed(seed)

    def drawn(count: int) -> Tensor:
        return torch.randint(6, 90, (count,), generator=g)

    prompt, contexts, completions = drawn(12), [], []
    level = [prompt]
    for _ in range(3):
        following = []
        for path in level:
            for _ in range(width):
                own = drawn(segment)
                contexts.append(path)
                completions.append(own)
                following.append(torch.cat([path, own]))
        level = following
    order = torch.randperm(len(contexts), generator=g).tolist()
    tokens = len(prompt) + segment * len(contexts)
    return Sequences(tuple(contexts[i] for i in order), tuple(completions[i] for i in order)), tokens


@pytest.mark.parametrize("kind", ["qwen3", "gemma2", "mistral", "gpt2"])
@pytest.mark.parametrize("activations", ["keep", "stream"])
def test_a_tree_is_scored_as_its_edges_are_by_themselves(
    kind: str, activations: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "BRANCH", 4)
    policy = in_float64(tiny_policy(kind))
    given_, _ = branching()
    whole, whole_grads = scored(policy, "whole", given_)
    vars(policy)["forward_mode"] = "shared"
    policy.use_activations(activations)
    got, grads = scored(policy, "shared", given_)
    near = 1e-6 if kind == "gemma2" else 1e-9
    assert largest((got[name], whole[name]) for name in whole) < near
    assert largest(zip(grads, whole_grads, strict=True)) < near


def test_a_tree_costs_its_distinct_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "BRANCH", 4)
    given_, tokens = branching()
    row = pack(given_, torch.device("cpu"))
    # Of the last level, the last token of each edge predicts nothing.
    assert len(row.ids) == tokens - 27
    assert sum(given_.lengths) > 3 * tokens
    assert sum(len(pack(given_.select(rows), torch.device("cpu")).ids) for rows in packs(given_, 10**6)) == len(row.ids)
    # Cut in packs, only what is shared is computed again.
    parts = packs(given_, 150)
    assert len(parts) > 1
    lengths = [len(pack(given_.select(rows), torch.device("cpu")).ids) for rows in parts]
    assert max(lengths) <= 150
    assert sum(lengths) < 1.6 * tokens


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(
        st.tuples(st.lists(st.integers(6, 7), min_size=1, max_size=6), st.lists(st.integers(6, 7), max_size=6)),
        min_size=1,
        max_size=8,
    ),
    branch=st.sampled_from([0, 1, 3, 64]),
)
def test_every_token_stands_behind_its_own_sequence(pairs: list[tuple[list[int], list[int]]], branch: int) -> None:
    """What a place of the row sees of it, in the order of the positions, is what stands before it in each sequence."""
    given_ = Sequences(
        tuple(torch.tensor(c) for c, _ in pairs), tuple(torch.tensor(o, dtype=torch.int64) for _, o in pairs)
    )
    before, trees.BRANCH = trees.BRANCH, branch
    try:
        row = pack(given_, torch.device("cpu"))
    finally:
        trees.BRANCH = before
    sees: dict[int, list[int]] = {}
    for share in row.layout.shares:
        for i in range(share.start, share.middle):
            sees[i] = list(range(share.start, i + 1))
        far = [place for start, stop in share.seen for place in range(start, stop)]
        at = share.middle
        for count in share.suffixes:
            sees |= {i: [*far, *range(at, i + 1)] for i in range(at, at + count)}
            at += count
    assert sorted(sees) == list(range(len(row.ids)))
    positions = row.layout.positions().tolist() if len(row.ids) else []
    found = set()
    for source, i, column, token in zip(
        *(x.tolist() for x in (row.source, row.row, row.column, row.tokens)), strict=True
    ):
        context, completion = pairs[i]
        seen = [*context, *completion[:column]]
        assert row.ids[sees[source]].tolist() == seen
        assert [positions[place] for place in sees[source]] == list(range(len(seen)))
        assert completion[column] == token
        found.add((i, column))
    assert found == {(i, t) for i, (_, o) in enumerate(pairs) for t in range(len(o))}
    if branch == 0:
        # Nothing stands there twice.
        beginnings = {(*c, *o[:-1])[: n + 1] for c, o in pairs if o for n in range(len(c) + len(o) - 1)}
        assert len(row.ids) == len(beginnings)
