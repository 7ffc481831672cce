"""Folders of tiny random models with the tokenizers and chat templates that people's models have."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

CORPUS = [
    "What is 2 + 2? The answer is 4. x != y , a == b ; print ( 'hi' ) ! <think>hmm</think><answer>4</answer>\n",
    "Once upon a time, a little girl named Lily had a red ball. user assistant system tool\n",
    "naïve café 你好 世界 😀 Привет",
] * 40 + [f"{a} + {b} = {a + b}\n" for a in range(30) for b in range(10)]

CHATML = (
    "{%- for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + (m['content'] or '') }}{{ '<|im_end|>\n' }}"
    "{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Opens a thought for the model, as templates of reasoning models do.
THINKING = CHATML.replace("'<|im_start|>assistant\n' }}{% endif", "'<|im_start|>assistant\n<think>\n' }}{% endif")
# Refuses a system message, and roles that do not alternate.
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] | trim"
    " + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
CHATML_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def byte_level(specials: tuple[str, ...]) -> Tokenizer:
    """As GPT-2, Qwen and Llama 3: a space belongs to the word after it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=420, special_tokens=list(specials), initial_alphabet=alphabet)
    )
    return made


def prepending(specials: tuple[str, ...]) -> Tokenizer:
    """As Llama 2: a normalizer puts a space mark before every text."""
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    # Pairs are merged within words only, as sentencepiece does.
    made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    made.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>", *specials, *bytes_], show_progress=False)
    )
    made.pre_tokenizer = pre_tokenizers.Sequence([])
    return made


def metaspace(specials: tuple[str, ...]) -> Tokenizer:
    """As sentencepiece's unigram models in tokenizers: a space mark before the first word, by the pre-tokenizer."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    made.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=400, special_tokens=["<unk>", *specials], unk_token="<unk>", show_progress=False
        ),
    )
    return made


def tokenizer_of(
    base: Callable[[tuple[str, ...]], Tokenizer] = byte_level,
    *,
    template: str | None = CHATML,
    specials: tuple[str, ...] = CHATML_SPECIALS,
    eos: str = "<|im_end|>",
    pad: str = "<|endoftext|>",
    bos: str | None = None,
    added: tuple[str, ...] = (),
    added_special: bool = True,
    around: str | None = None,
    **more: Any,
) -> PreTrainedTokenizerFast:
    """A tokenizer.

    Args:
        added: tokens added behind the trained vocabulary.
        around: what encoding puts around a text, as in "<s> $A </s>".
    """
    made = base(specials)
    if around is not None:
        marks = [(word, made.token_to_id(word)) for word in around.split() if word != "$A"]
        made.post_processor = processors.TemplateProcessing(single=around, special_tokens=marks)
    whole = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=eos, pad_token=pad, bos_token=bos, **more)
    if added:
        whole.add_tokens(list(added), special_tokens=added_special)
    whole.chat_template = template
    return whole


SENTENCE = {"template": None, "specials": ("<s>", "</s>"), "eos": "</s>", "bos": "<s>", "pad": "</s>"}
TOKENIZERS: Mapping[str, Callable[[], PreTrainedTokenizerFast]] = {
    "chat": lambda: tokenizer_of(),
    "prefill": lambda: tokenizer_of(template=THINKING),
    "gemma": lambda: tokenizer_of(
        template=GEMMA,
        specials=("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        eos="<eos>",
        pad="<pad>",
        bos="<bos>",
    ),
    # A base model: text ends with one token, a turn of the template with another.
    "chatbase": lambda: tokenizer_of(eos="<|endoftext|>"),
    "specialtags": lambda: tokenizer_of(added=("<think>", "</think>", "<answer>", "</answer>")),
    "plain": lambda: tokenizer_of(**SENTENCE, around="<s> $A"),
    "addeos": lambda: tokenizer_of(**SENTENCE, around="<s> $A </s>"),
    "cleanup": lambda: tokenizer_of(**SENTENCE, around="<s> $A", clean_up_tokenization_spaces=True),
    "llama2": lambda: tokenizer_of(prepending, **SENTENCE, around="<s> $A"),
    "metaspace": lambda: tokenizer_of(metaspace, **SENTENCE, around="<s> $A"),
    # Two tokens more than the model has rows for.
    "smallvocab": lambda: tokenizer_of(added=("<tool_x>", "</tool_x>"), added_special=False),
}
NAMES = tuple(TOKENIZERS)
LLAMA = ("plain", "addeos", "cleanup", "llama2", "metaspace")


def make_folder(name: str, out: Path) -> Path:
    """Write the model folder of that name to `out`; a few thousand parameters, random with a fixed seed."""
    words = TOKENIZERS[name]()
    torch.manual_seed(0)
    sizes = {
        "vocab_size": len(words) - 2 * (name == "smallvocab"),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "eos_token_id": words.eos_token_id,
        "bos_token_id": words.bos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    # The folder of a Qwen2 is read with Qwen2's own splitting of words, whatever its tokenizer.json says.
    model = LlamaForCausalLM(LlamaConfig(**sizes)) if name in LLAMA else Qwen2ForCausalLM(Qwen2Config(**sizes))
    model.save_pretrained(out)
    words.save_pretrained(out)
    if name == "gemma":
        ends = {
            "bos_token_id": words.bos_token_id,
            "eos_token_id": [words.eos_token_id, words("<end_of_turn>")["input_ids"][0]],
        }
        (out / "generation_config.json").write_text(json.dumps({**ends, "pad_token_id": words.pad_token_id}))
    return out
