"""What a prompt asks, for a column that is too narrow for its system message and the markers of its chat template."""

from __future__ import annotations

import re

# How templates begin a turn of the user: ChatML, Llama 3, Gemma, Zephyr and Phi, Llama 2 and Mistral.
_USER = re.compile(
    r"<\|im_start\|>user\s|<\|start_header_id\|>user<\|end_header_id\|>|<start_of_turn>user\s|<\|user\|>|"
    r"\[INST\](?:\s*<<SYS>>.*?<</SYS>>)?",
    re.DOTALL,
)
_MARKER = re.compile(r"<\|[^|<>\s]{1,30}\|>|<(?:start|end)_of_turn>|\[/INST\]|</?s>|<(?:bos|eos)>")


def question(prompt: str) -> str:
    """The last turn of the user in a prompt as the model read it; the prompt without markers where no turn is known."""
    turns = list(_USER.finditer(prompt))
    if turns:
        prompt = prompt[turns[-1].end() :]
        ends = _MARKER.search(prompt)
        prompt = prompt[: ends.start()] if ends else prompt
    return _MARKER.sub(" ", prompt).strip()
