"""The text of single tokens."""

from __future__ import annotations

from typing import Any

import pytest

from cohort.policies.pieces import Pieces
from cohort.policies.toy import tokenizer


def wrapped(model: Any, pre: Any, decoder: Any) -> Any:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(model)
    inner.pre_tokenizer, inner.decoder = pre, decoder
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>")


@pytest.fixture(scope="module")
def bytes_alone() -> Any:
    """A token for every byte, so that characters outside ASCII are several."""
    from tokenizers import decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[])
    return wrapped(words, pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel())


@pytest.fixture(scope="module")
def words_with_spaces() -> Any:
    """A token is a word with the space before it, as in SentencePiece."""
    from tokenizers import decoders, models, pre_tokenizers

    vocab = [("<unk>", 0.0), *((word, -1.0) for word in ("▁", "a", "▁two", "▁words", "s"))]
    return wrapped(models.Unigram(vocab, unk_id=0), pre_tokenizers.Metaspace(), decoders.Metaspace())


@pytest.mark.parametrize("text", ["plain", "naïve – 日本語 🎉🎉 end", "\n\t ünï\u200d", ""])
def test_pieces_joined_are_the_text_also_where_a_character_is_several_tokens(bytes_alone: Any, text: str) -> None:
    tokens = bytes_alone(text)["input_ids"]
    pieces = Pieces(bytes_alone)(tokens)
    assert len(pieces) == len(tokens) == len(text.encode())
    assert "".join(pieces) == text
    # Each character stands at the token that completes it.
    assert [piece for piece in pieces if piece] == list(text)


def test_a_character_that_was_cut_is_shown_as_unreadable(bytes_alone: Any) -> None:
    cut = bytes_alone("ok 日")["input_ids"][:-1]
    pieces = Pieces(bytes_alone)(cut)
    assert pieces[:3] == ["o", "k", " "]
    assert set("".join(pieces[3:])) == {"\ufffd"}


def test_the_space_before_a_word_is_kept(words_with_spaces: Any) -> None:
    tokens = words_with_spaces("two words")["input_ids"]
    assert Pieces(words_with_spaces)(tokens) == [" two", " words"]


def test_special_tokens_are_named() -> None:
    words = tokenizer()
    tokens = [*words("4+4=8", add_special_tokens=False)["input_ids"], words.eos_token_id]
    assert Pieces(words)(tokens) == [*"4+4=8", words.eos_token]
