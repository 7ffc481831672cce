"""The text of single tokens, for those who look at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

UNREADABLE = "\ufffd"


class Pieces:
    """Texts of a tokenizer's tokens: joined, those of a completion give its text; special tokens are shown by name.

    Args:
        tokenizer: of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        special = {i for i, added in getattr(tokenizer, "added_tokens_decoder", {}).items() if added.special}
        self._special = frozenset(tokenizer.all_special_ids) | special
        self._known: dict[int, str] = {}
        # Decoders drop the space before a first word, so that every token is decoded after another one.
        self._anchor = list(tokenizer("a", add_special_tokens=False)["input_ids"])[-1:]
        self._before = self._decode(self._anchor)

    def __call__(self, tokens: Sequence[int]) -> list[str]:
        """The piece of each token. Of a character that several tokens spell, the last one has it, and the others ""."""
        known = self._known
        for token in set(tokens).difference(known):
            known[token] = self._name(token) if token in self._special else self._after(token)
        out = [known[token] for token in tokens]
        begin = 0
        for place, piece in enumerate(out):
            if UNREADABLE not in piece:
                begin = place + 1
                continue
            text = self._after(*tokens[begin : place + 1])
            ends = place + 1 == len(out) or UNREADABLE not in known[tokens[place + 1]]
            if not text.endswith(UNREADABLE) or ends:
                out[begin : place + 1] = [""] * (place - begin) + [text]
                begin = place + 1
        return out

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _after(self, *tokens: int) -> str:
        text = self._decode([*self._anchor, *tokens])
        return text[len(self._before) :] if text.startswith(self._before) else self._decode(tokens)

    def _name(self, token: int) -> str:
        return str(self._tokenizer.convert_ids_to_tokens(token))
