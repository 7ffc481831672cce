"""Spans of a rollout's text as spans of its tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cohort.types import Batch
from cohort.types.access import ModelAccess

# What a tokenizer writes for bytes that are no whole character yet.
BROKEN = "\ufffd"
# Tokens after which a text is decoded from a later start.
WINDOW = 32
_BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*")

Span = tuple[int, int]


def token_ends(tokens: Sequence[int], decode: Callable[[Sequence[int]], str], known: dict[int, str]) -> list[int]:
    """Characters of the text up to and including each token.

    Args:
        known: text of single tokens, filled as they come; share it between calls.
    """
    for token in set(tokens) - known.keys():
        known[token] = decode([token])
    pieces = [known[token] for token in tokens]
    ends: list[int] = []
    if "".join(pieces) == decode(tokens) and not any(BROKEN in piece for piece in pieces):
        for piece in pieces:
            ends.append(len(piece) + (ends[-1] if ends else 0))
        return ends
    # Pieces that do not add up, such as parts of a character: decode growing stretches, each with what stands before
    # it, since a tokenizer may write the beginning of a text differently.
    before, start, length, base = 0, 0, 0, 0
    for t in range(len(tokens)):
        text = decode(tokens[before : t + 1])
        whole = len(text.rstrip(BROKEN))
        ends.append(max(base + whole - length, base))
        if t + 1 - start >= WINDOW and whole == len(text):
            before, start, base = start, t + 1, ends[-1]
            length = len(decode(tokens[before:start]))
    return ends


def text_ends(batch: Batch, access: ModelAccess) -> Tensor:
    """[N, T] int64: characters of each rollout's text up to and including each token."""
    known: dict[int, str] = {}
    out = torch.zeros(batch.mask.shape, dtype=torch.int64)
    for i, rollout in enumerate(access.rollouts):
        ends = token_ends(rollout.tokens, access.decode, known)
        if ends:
            out[i] = ends[-1]
            out[i, : len(ends)] = torch.tensor(ends)
    return out.to(batch.device)


def token_starts(ends: Tensor) -> Tensor:
    """[N, T] characters before each token, from those up to and including it."""
    return torch.nn.functional.pad(ends, (1, -1))


def tokens_within(ends: Tensor, spans: Sequence[Span | None]) -> Tensor:
    """[N, T] bool: tokens that write a character of the text from span[0] to before span[1]; none without a span.

    Args:
        ends: [N, T], from `text_ends`.
    """
    bounds = torch.tensor([span or (0, 0) for span in spans], dtype=torch.int64, device=ends.device).reshape(-1, 2)
    starts = token_starts(ends)
    return (ends > starts) & (starts < bounds[:, 1:]) & (ends > bounds[:, :1])


def answer_span(text: str, open_tag: str, close_tag: str) -> Span | None:
    """Where the last tagged answer stands in a text; None if there is none."""
    tag = text.rfind(open_tag)
    if tag < 0:
        return None
    start = tag + len(open_tag)
    end = text.find(close_tag, start)
    return start, len(text) if end < 0 else end


def thought_and_answer(text: str) -> tuple[Span | None, Span | None]:
    """Characters of the thought and of the answer after it; None where one is missing."""
    begin, end = text.find("<think>"), text.find("</think>")
    start = begin + len("<think>") if begin >= 0 else 0
    if end < 0:
        return ((start, len(text)) if begin >= 0 else None), None
    return (start, end), (end + len("</think>"), len(text))


def tagged_once(text: str) -> tuple[bool, bool]:
    """Whether thought and answer stand in tags that open and close exactly once, in this order; neither if they overlap."""
    found = {}
    for tag in ("think", "answer"):
        opened, closed = ([m.span() for m in re.finditer(f"<{slash}{tag}>", text)] for slash in ("", "/"))
        if len(opened) == len(closed) == 1 and opened[0][1] <= closed[0][0]:
            found[tag] = (opened[0][0], closed[0][1])
    if len(found) == 2 and max(a for a, _ in found.values()) < min(b for _, b in found.values()):
        return False, False
    return "think" in found, "answer" in found


def steps(text: str) -> list[Span]:
    """Stretches of the text between blank lines, which belong to the step before them; none of an empty text."""
    starts = [0, *(match.end() for match in _BLANK_LINES.finditer(text) if text[: match.start()].strip())]
    ends = [*starts[1:], len(text)]
    return [(a, b) for a, b in zip(starts, ends, strict=True) if text[a:b].strip()]


def step_index(ends: Tensor, spans: Sequence[Sequence[Span]]) -> Tensor:
    """[N, T] int64: the step that each token begins in, from 0; a token before or after all steps gets the nearest.

    Args:
        ends: [N, T], from `text_ends`.
        spans: the steps of each rollout, in order.
    """
    width = max((len(each) for each in spans), default=0)
    # A token of the k-th step begins after the starts of k - 1 others.
    later = torch.full((len(spans), max(width - 1, 0)), torch.iinfo(torch.int64).max)
    for i, each in enumerate(spans):
        for k, (start, _) in enumerate(each[1:]):
            later[i, k] = start
    return torch.searchsorted(later.to(ends.device), token_starts(ends).contiguous(), right=True)


def spread_over_tokens(values: Tensor, step_of: Tensor) -> Tensor:
    """[N, T] what the step of each token has in `values` [N, S]; 0 for a step beyond S."""
    return torch.nn.functional.pad(values, (0, 1)).gather(1, step_of.clamp(max=values.shape[1]))


def with_step_numbers(text: str, spans: Sequence[Span]) -> str:
    """The steps of a text with their numbers before them, from 0, and a blank line between."""
    return "\n\n".join(f"Step {k}: {text[a:b].strip()}" for k, (a, b) in enumerate(spans))
