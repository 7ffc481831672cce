"""Tokenizers with the chat templates of models that people train, and an engine that says what it is told to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cohort.policies.causal_lm import CausalLM
from tests.model_folders import CHATML_SPECIALS, byte_level, prepending, tokenizer_of

TEMPLATES = Path(__file__).parent / "samples" / "templates"
HEADERS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)
GEMMA = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
MISTRAL = (
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[TOOL_CALLS]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
)


@dataclass(frozen=True)
class Family:
    """How a kind of model writes text.

    Attributes:
        end: text of the token that ends its turn.
        template: name of a file of templates.
    """

    end: str
    template: str
    tokenizer: Mapping[str, Any]


FAMILIES = {
    "qwen3": Family("<|im_end|>", "qwen3", {"added": ("<think>", "</think>"), "added_special": False}),
    "llama3": Family(
        "<|eot_id|>", "llama3", {"specials": HEADERS, "eos": "<|end_of_text|>", "bos": HEADERS[0], "pad": HEADERS[1]}
    ),
    "llama3_1": Family(
        "<|eot_id|>", "llama3_1", {"specials": HEADERS, "eos": "<|end_of_text|>", "bos": HEADERS[0], "pad": HEADERS[1]}
    ),
    "gemma3": Family("<end_of_turn>", "gemma3", {"specials": GEMMA, "eos": "<eos>", "bos": "<bos>", "pad": "<pad>"}),
    "mistral": Family("</s>", "mistral", {"specials": MISTRAL, "eos": "</s>", "bos": "<s>", "pad": "</s>"}),
    # Its tokenizer puts a space before every text, and so does not give texts back as they were.
    "mistral_v1": Family(
        "</s>", "mistral", {"base": prepending, "specials": MISTRAL, "eos": "</s>", "bos": "<s>", "pad": "</s>"}
    ),
    "hostile": Family("<|im_end|>", "hostile", {}),
}


@cache
def policy_of(family: str) -> CausalLM:
    """A tiny random model with the tokenizer and the chat template of a family."""
    made = FAMILIES[family]
    how = {"base": byte_level, "specials": CHATML_SPECIALS, **made.tokenizer}
    words = tokenizer_of(**how, template=(TEMPLATES / f"{made.template}.jinja").read_text(encoding="utf-8"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)
    return CausalLM(model, words, name=family)
