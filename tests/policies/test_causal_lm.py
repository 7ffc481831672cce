"""Policies: text to tokens, log-probabilities, adapters, references, saving."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from cohort.errors import UsageError
from cohort.policies.causal_lm import CausalLM
from cohort.policies.head import statistics_of
from cohort.policies.loading import merge_adapter
from cohort.policies.sequences import Sequences
from cohort.policies.toy import toy
from tests.helpers import tiny_policy

KINDS = ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "gpt2", "mistral", "phi3")


def ragged(seed: int = 0) -> Sequences:
    g = torch.Generator().manual_seed(seed)
    shapes = [(5, 3), (2, 7), (9, 1), (4, 0), (1, 4)]
    return Sequences(
        tuple(torch.randint(5, 90, (p,), generator=g) for p, _ in shapes),
        tuple(torch.randint(5, 90, (c,), generator=g) for _, c in shapes),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_those_of_each_sequence_by_itself(kind: str) -> None:
    policy, sequences = tiny_policy(kind, dtype=torch.float64), ragged()
    for temperature in (1.0, 0.7):
        with torch.no_grad():
            scored = policy.log_probs(sequences, width=8, temperature=temperature, want=frozenset({"logp", "entropy"}))
            for i, (context, completion) in enumerate(zip(sequences.context, sequences.completion, strict=True)):
                logits = policy.model(input_ids=torch.cat([context, completion])[None]).logits[0] / temperature
                log_probs = logits[len(context) - 1 : len(context) + len(completion) - 1].log_softmax(-1)
                count = len(completion)
                expected = log_probs.gather(1, completion[:, None])[:, 0]
                assert torch.allclose(scored["logp"][i, :count], expected, atol=1e-9)
                entropy = -(log_probs.exp() * log_probs).sum(-1)
                assert torch.allclose(scored["entropy"][i, :count], entropy, atol=1e-9)
                assert not scored["logp"][i, count:].any()


@pytest.mark.parametrize("limit", [0, 4])
def test_results_come_in_the_order_of_their_names(limit: int) -> None:
    """Not in a set's, which differs between processes, and with it between the ranks of a run."""
    policy, one = tiny_policy("qwen3"), ragged().select(torch.tensor([1]))
    policy.pass_limit = limit
    names = ("logp", "entropy", "logits", "hidden")
    for count in (2, 3, 4):
        for want in itertools.combinations(names, count):
            found = policy.log_probs(one, width=7, want=frozenset(want))
            assert list(found) == sorted(want)


def test_statistics_are_taken_in_float32() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * 10
    tokens = torch.tensor([1, 2, 3])
    half, _ = statistics_of(logits.bfloat16(), tokens, 1.0, False)
    assert half.dtype == torch.float32
    wide, _ = statistics_of(logits.bfloat16().double(), tokens, 1.0, False)
    assert torch.allclose(half.double(), wide, atol=1e-5)


def test_micro_batches_cover_every_row_once_within_the_budget() -> None:
    sequences = ragged()
    parts = sequences.micro_batches(18)
    assert sorted(torch.cat(parts).tolist()) == list(range(len(sequences)))
    lengths = sequences.lengths
    for part in parts:
        longest = max(lengths[i] for i in part.tolist())
        assert len(part) == 1 or longest * len(part) <= 18
    assert len(sequences.micro_batches(1)) == len(sequences)
    assert len(sequences.micro_batches(10_000)) == 1


def test_text_goes_through_the_chat_template_if_there_is_one() -> None:
    policy = tiny_policy()
    assert policy.renderer.render("hi") == "<|user|>hi<|assistant|>"
    assert policy.renderer.render("hi", system="be kind") == "<|system|>be kind<|user|>hi<|assistant|>"
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert policy.renderer.render(chat) == "<|user|>a<|assistant|>b<|end|><|user|>c<|assistant|>"
    policy.renderer.tokenizer.chat_template = None
    assert policy.renderer.render("hi") == "hi"
    assert policy.renderer.render(chat, system="s") == "s\n\na\n\nb\n\nc"


def test_text_survives_the_tokenizer() -> None:
    policy = tiny_policy()
    text = " 12 + {3}\n= \\boxed{15}?"
    ids = policy.renderer.encode(text)
    assert len(ids) == len(text)
    assert policy.renderer.decode((*ids, policy.renderer.tokenizer.eos_token_id)) == text


def test_a_beginning_of_sequence_token_can_be_asked_for() -> None:
    plain = tiny_policy()
    with pytest.raises(UsageError, match="--bos"):
        CausalLM(plain.model, plain.renderer.tokenizer, bos=True)
    plain.renderer.tokenizer.bos_token = "<|user|>"
    plain.renderer.tokenizer.chat_template = None
    asked = CausalLM(plain.model, plain.renderer.tokenizer, bos=True)
    bos = plain.renderer.tokenizer.bos_token_id
    assert asked.renderer.encode("ab", start=True) == (bos, *plain.renderer.encode("ab"))
    assert asked.renderer.encode("<|user|>ab", start=True) == (bos, *plain.renderer.encode("ab"))
    assert asked.renderer.encode("ab") == plain.renderer.encode("ab")


def test_a_saved_policy_loads_with_transformers(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy = toy(0, hidden=32, layers=1)
    policy.save(tmp_path)
    model, words = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    for a, b in zip(policy.model.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert words("1+1")["input_ids"] == list(policy.renderer.encode("1+1"))
    assert words.chat_template == policy.renderer.tokenizer.chat_template
    again = CausalLM.load(str(tmp_path))
    assert again.renderer.stop_ids == policy.renderer.stop_ids
    again.load_weights(tmp_path)


def test_the_nursery_is_the_same_for_the_same_seed_and_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    first, second, other = toy(3), toy(3), toy(4)
    assert torch.equal(before, torch.get_rng_state())
    weights = [next(iter(p.model.state_dict().values())) for p in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert 5e5 <= sum(p.numel() for p in first.model.parameters()) <= 3e6


def test_the_reference_stays_where_the_policy_was() -> None:
    policy, sequences = tiny_policy(), ragged()
    with pytest.raises(RuntimeError, match="no model plays the role 'reference'"), policy.roles.playing("reference"):
        pass
    policy.roles.make("reference")
    before = policy.log_probs(sequences, width=7)["logp"].detach()
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.add_(0.1)
    after = policy.log_probs(sequences, width=7)["logp"].detach()
    assert torch.equal(policy.log_probs(sequences, width=7, role="reference")["logp"].detach(), before)
    assert not torch.allclose(after, before)


def test_adapters_train_few_weights_and_their_reference_is_the_base(tmp_path: Path) -> None:
    base = tiny_policy("llama")
    base.save(tmp_path / "base")
    policy, sequences = CausalLM.load(str(tmp_path / "base")), ragged()
    before = policy.log_probs(sequences, width=7)["logp"].detach()
    torch.manual_seed(0)
    policy.add_lora(4)
    assert policy.is_adapter
    assert 0 < sum(p.numel() for p in policy.trainable()) < sum(p.numel() for p in base.model.parameters())
    assert torch.allclose(policy.log_probs(sequences, width=7)["logp"], before, atol=1e-6)
    policy.roles.make("reference")
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.add_(0.05)
    moved = policy.log_probs(sequences, width=7)["logp"].detach()
    assert not torch.allclose(moved, before, atol=1e-3)
    assert torch.allclose(policy.log_probs(sequences, width=7, role="reference")["logp"], before, atol=1e-6)

    policy.save(tmp_path / "adapter")
    fresh = CausalLM.load(str(tmp_path / "base"))
    fresh.add_lora(4)
    fresh.load_weights(tmp_path / "adapter")
    assert torch.allclose(fresh.log_probs(sequences, width=7)["logp"], moved, atol=1e-6)
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    merged = CausalLM.load(str(tmp_path / "merged"))
    assert torch.allclose(merged.log_probs(sequences, width=7)["logp"], moved, atol=1e-5)
    with pytest.raises(UsageError, match="cohort merge"):
        CausalLM.load(str(tmp_path / "adapter"))
    with pytest.raises(UsageError, match="no LoRA adapter"):
        merge_adapter(tmp_path / "base", tmp_path / "x")
