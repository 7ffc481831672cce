"""Where characters of a text stand among tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cohort.rollouts.batching import make_batch
from cohort.signals import spans
from tests.helpers import access_of

PIECES = ("ab", " c", "\n\n", "d", "ü", "€", " 😀e", "")


def bytes_decode(vocabulary: Sequence[bytes]):
    """A tokenizer whose tokens may be parts of a character."""
    return lambda tokens: b"".join(vocabulary[t] for t in tokens).decode("utf-8", errors="replace")


def stripping_decode(tokens: Sequence[int]) -> str:
    """A tokenizer that leaves out the space before the first word of what it is given."""
    return "".join(PIECES[t] for t in tokens).removeprefix(" ")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=90))
def test_ends_of_tokens_that_are_parts_of_characters(tokens: list[int]) -> None:
    euro = "€".encode()
    vocabulary = [b"a", b" b", euro[:1], euro[1:2], euro[2:], "ü".encode()]
    # Whole characters only, cut into their bytes.
    cut = [part for token in tokens for part in ([2, 3, 4] if token in (2, 3, 4) else [token])]
    ends = spans.token_ends(cut, bytes_decode(vocabulary), {})
    text, at = bytes_decode(vocabulary)(cut), 0
    for token, end in zip(cut, ends, strict=True):
        at += 0 if token in (2, 3) else len(vocabulary[token].decode("utf-8", errors="ignore")) or 1
        assert end == at
    assert at == len(text)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, len(PIECES) - 1), max_size=90))
def test_ends_where_the_first_space_is_left_out(tokens: list[int]) -> None:
    ends = spans.token_ends(tokens, stripping_decode, {})
    assert ends == [len(stripping_decode(tokens[: t + 1])) for t in range(len(tokens))]


def test_tokens_within_a_span_of_the_text() -> None:
    access = access_of(["say <answer>12</answer>.", "none", ""])
    batch = make_batch(access.rollouts, {})
    ends = spans.text_ends(batch, access)
    inside = spans.tokens_within(ends, [(12, 14), None, (0, 5)])
    said = [
        "".join(access.decode([t]) for t, i in zip(r.tokens, row, strict=False) if i)
        for r, row in zip(access.rollouts, inside.tolist(), strict=True)
    ]
    assert said == ["12", "", ""]
    # A token that is partly inside counts.
    assert spans.tokens_within(torch.tensor([[2, 4, 6]]), [(3, 5)]).tolist() == [[False, True, True]]


def test_steps_are_what_blank_lines_separate() -> None:
    text = "\n\nfirst\nstill\n \n\n second\n\n\nthird\n\n"
    assert [text[a:b].strip() for a, b in spans.steps(text)] == ["first\nstill", "second", "third"]
    assert spans.steps(" \n\n ") == spans.steps("") == []
    assert spans.with_step_numbers("a\n\nb", spans.steps("a\n\nb")) == "Step 0: a\n\nStep 1: b"


def test_every_token_has_the_step_that_it_begins_in() -> None:
    texts = ["a\n\nbc\n\nd", "one", "", "x\n\ny"]
    access = access_of(texts)
    batch = make_batch(access.rollouts, {})
    step_of = spans.step_index(spans.text_ends(batch, access), [spans.steps(text) for text in texts])
    rows = [row[: len(r.tokens)] for r, row in zip(access.rollouts, step_of.tolist(), strict=True)]
    assert rows == [[0, 0, 0, 1, 1, 1, 1, 2, 2], [0, 0, 0, 0], [0], [0, 0, 0, 1, 1]]
    assert spans.step_index(torch.zeros(2, 3, dtype=torch.int64), [[], []]).tolist() == [[0] * 3] * 2
    values = spans.spread_over_tokens(torch.tensor([[1.0, 2.0]]), torch.tensor([[0, 1, 2, 5]]))
    assert values.tolist() == [[1.0, 2.0, 0.0, 0.0]]
