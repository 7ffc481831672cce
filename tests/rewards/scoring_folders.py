"""Small reward models in folders, made without training: of known weights, of encoders and decoders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from cohort.policies.toy import tokenizer as characters


def words(*, pair: bool = True, places: int = 32) -> Any:
    """A tokenizer of letters as those of encoders are: [CLS] text [SEP] other [SEP]; without a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz "]
    inner = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    if pair:
        inner.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=places,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def encoder(folder: Path, labels: Sequence[str] = ("reward",), problem: str | None = None, seed: int = 0) -> Path:
    """A random BERT of one layer."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=31,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        pad_token_id=0,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        problem_type=problem,
    )
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8.0)
    model.save_pretrained(folder)
    words().save_pretrained(folder)
    return folder


def decoder(folder: Path, labels: Sequence[str] = ("reward",), seed: int = 0) -> Path:
    """A random Qwen3 of one layer with the embedded model's characters and chat template."""
    from transformers import Qwen3Config, Qwen3ForSequenceClassification

    torch.manual_seed(seed)
    letters = characters()
    config = Qwen3Config(
        vocab_size=len(letters),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=48,
        pad_token_id=letters.pad_token_id,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    model = Qwen3ForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    model.save_pretrained(folder)
    letters.save_pretrained(folder)
    return folder


def unpadded(folder: Path) -> Path:
    """A random GPT-2 whose tokenizer has no token to fill texts up with."""
    from transformers import GPT2Config, GPT2ForSequenceClassification

    torch.manual_seed(0)
    letters = characters()
    letters.pad_token, letters.chat_template = None, None
    config = GPT2Config(vocab_size=len(letters), n_embd=16, n_layer=1, n_head=2, n_positions=48, num_labels=1)
    model = GPT2ForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    model.save_pretrained(folder)
    letters.save_pretrained(folder)
    return folder
