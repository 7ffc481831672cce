"""The text of single tokens, for those who look at them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

UNREADABLE = "\ufffd"
_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")


class Decoder:
    """The text of tokens as they stand behind others, nothing left out and nothing tidied up.

    Args:
        tokenizer: of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # Decoders drop the space before a first word, so that everything is decoded after another token.
        self._anchor = list(tokenizer("a", add_special_tokens=False)["input_ids"])[-1:]
        self._before = self._decode(self._anchor)

    def __call__(self, tokens: Sequence[int]) -> str:
        text = self._decode([*self._anchor, *tokens])
        return text[len(self._before) :] if text.startswith(self._before) else self._decode(tokens)

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def special_tokens(tokenizer: Any) -> dict[int, str]:
    """The special tokens of a tokenizer of transformers: id -> text. Bytes of characters are none, though some call them so."""
    found = {
        i: str(added.content) for i, added in getattr(tokenizer, "added_tokens_decoder", {}).items() if added.special
    }
    named = {i: str(tokenizer.convert_ids_to_tokens(i)) for i in tokenizer.all_special_ids}
    return {i: text for i, text in {**found, **named}.items() if not _BYTE.fullmatch(text)}


class Pieces:
    """Texts of a tokenizer's tokens: joined, those of a completion give its text; special tokens are shown by name.

    Args:
        tokenizer: of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._special = special_tokens(tokenizer)
        self._known: dict[int, str] = {}
        self._after = Decoder(tokenizer)

    def __call__(self, tokens: Sequence[int]) -> list[str]:
        """The piece of each token. Of a character that several tokens spell, the last one has it, and the others ""."""
        known = self._known
        for token in set(tokens).difference(known):
            known[token] = self._special[token] if token in self._special else self._after([token])
        out = [known[token] for token in tokens]
        begin = 0
        for place, piece in enumerate(out):
            if UNREADABLE not in piece:
                begin = place + 1
                continue
            text = self._after(tokens[begin : place + 1])
            ends = place + 1 == len(out) or UNREADABLE not in known[tokens[place + 1]]
            if not text.endswith(UNREADABLE) or ends:
                out[begin : place + 1] = [""] * (place - begin) + [text]
                begin = place + 1
        return out
