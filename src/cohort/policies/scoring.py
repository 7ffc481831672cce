"""Models that score whole texts: transformers' sequence classification, each with a tokenizer of its own."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cohort.errors import UsageError, out_of_memory, shown
from cohort.policies.loading import check_name, reason
from cohort.quiet import quiet_libraries
from cohort.types import Message

# Tokens of a forward pass, the padding included.
PASS_TOKENS = 16384
# A tokenizer that knows no limit says so by a huge number.
NO_LIMIT = 10**7
REGRESSION, INDEPENDENT, EXCLUSIVE = "regression", "multi_label_classification", "single_label_classification"
# How a prompt and what follows it become one sequence: through the chat template, as the two texts of a pair, or as one text.
Layout = Literal["chat", "pair", "text"]
LAYOUTS: tuple[Layout, ...] = ("chat", "pair", "text")
Source = str | Sequence[Message]


@dataclass(frozen=True)
class Encoded:
    """A text as a model reads it.

    Attributes:
        inputs: `input_ids`, and what else the tokenizer gives a token.
        cut: tokens of its beginning that were left out, since the model reads no more.
    """

    inputs: Mapping[str, list[int]]
    cut: int

    def __len__(self) -> int:
        return len(self.inputs["input_ids"])


@dataclass
class ScoringModel:
    """A model with an output for each label, and its tokenizer.

    Attributes:
        length: most tokens that it reads.
        layout: how its texts are laid out.
    """

    model: Any
    tokenizer: Any
    name: str
    length: int
    layout: Layout

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(str(self.model.config.id2label[i]) for i in range(self.model.config.num_labels))

    @property
    def problem(self) -> str:
        """What the outputs are: values ("regression"), logits each of its own ("multi_label_classification"), or logits of
        which one excludes the others ("single_label_classification")."""
        said = getattr(self.model.config, "problem_type", None)
        return str(said) if said else (REGRESSION if len(self.labels) == 1 else EXCLUSIVE)

    @property
    def device(self) -> torch.device:
        found: torch.device = next(self.model.parameters()).device
        return found

    # texts ---------------------------------------------------------------------------------------------------------

    def encode(self, prompt: Source, completion: Source) -> Encoded:
        """A prompt and its completion as the model reads them, cut at the left where they are too long.

        Raises:
            UsageError: the model's chat template refuses these messages.
        """
        if self.layout == "pair":
            return self._pair(said(prompt), said(completion))
        if self.layout == "chat":
            text = self._chat(prompt, completion)
        else:
            end = self.tokenizer.eos_token or ""
            text = said(prompt) + said(completion)
            text = text if not end or text.endswith(end) else text + end
        inputs = dict(self.tokenizer(text, add_special_tokens=self.layout == "text"))
        ids = inputs["input_ids"]
        cut = max(0, len(ids) - self.length)
        # What begins every text of the model begins it still.
        starts = {self.tokenizer.bos_token_id, self.tokenizer.cls_token_id} - {None}
        keep = 1 if cut and ids[0] in starts else 0
        return Encoded({key: value[:keep] + value[keep + cut :] for key, value in inputs.items()}, cut)

    def _chat(self, prompt: Source, completion: Source) -> str:
        messages = [*_messages(prompt, "user"), *_messages(completion, "assistant")]
        try:
            return str(self.tokenizer.apply_chat_template(messages, tokenize=False))
        except Exception as error:
            roles = ", ".join(str(message["role"]) for message in messages)
            raise UsageError(
                f"reward model '{self.name}': its chat template refuses messages of {roles}: {reason(error)}; give it the "
                "plain text instead (layout=text)"
            ) from error

    def _pair(self, prompt: str, completion: str) -> Encoded:
        whole = dict(self.tokenizer(prompt, completion))
        cut = max(0, len(whole["input_ids"]) - self.length)
        if cut:
            own = len(self.tokenizer(completion, add_special_tokens=False)["input_ids"])
            room = self.length - self.tokenizer.num_special_tokens_to_add(pair=True)
            # The prompt gives way as long as something of it is left; else the longer of the two.
            how = "only_first" if own < room else "longest_first"
            before, self.tokenizer.truncation_side = self.tokenizer.truncation_side, "left"
            try:
                whole = dict(self.tokenizer(prompt, completion, truncation=how, max_length=self.length))
            finally:
                self.tokenizer.truncation_side = before
        return Encoded(whole, cut)

    def unknown_share(self, texts: Sequence[str]) -> float:
        """Share of the tokens of some texts that the tokenizer has no piece for."""
        unknown = self.tokenizer.unk_token_id
        if unknown is None:
            return 0.0
        ids: list[int] = [
            token for text in texts for token in self.tokenizer(text, add_special_tokens=False)["input_ids"]
        ]
        return ids.count(unknown) / max(1, len(ids))

    # passes --------------------------------------------------------------------------------------------------------

    def forward(self, texts: Sequence[Encoded]) -> Tensor:
        """[n, K] outputs in float32, of one forward pass."""
        batch = self.tokenizer.pad([dict(text.inputs) for text in texts], padding_side="right", return_tensors="pt")
        more = {} if not hasattr(self.model.config, "use_cache") else {"use_cache": False}
        out = self.model(**{key: value.to(self.device) for key, value in batch.items()}, **more)
        logits: Tensor = out.logits
        return logits.float() if logits.dtype != torch.float64 else logits

    @torch.no_grad()
    def outputs(self, texts: Sequence[Encoded], *, tokens: int = PASS_TOKENS) -> Tensor:
        """[n, K] outputs in float32 in the processor's memory, in passes of at most so many tokens; without gradient."""
        self.model.eval()
        found = torch.zeros(len(texts), len(self.labels))
        for rows in passes([len(text) for text in texts], tokens):
            found[rows] = self.forward([texts[row] for row in rows]).cpu().float()
        return found

    def save(self, folder: Path) -> None:
        """Write model and tokenizer into a folder that transformers loads."""
        quiet_libraries()
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def passes(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Places of texts that go through the model together: alike in length, and of at most so many tokens with padding."""
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    rows: list[int] = []
    for row in order:
        if rows and lengths[row] * (len(rows) + 1) > tokens:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def said(source: Source) -> str:
    """What messages say, one after the other; a text as it is."""
    return source if isinstance(source, str) else "\n".join(str(message.get("content") or "") for message in source)


def _messages(source: Source, role: str) -> list[Message]:
    return [{"role": role, "content": source}] if isinstance(source, str) else list(source)


def load_scoring(
    name: str,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str = "auto",
    length: int | None = None,
    layout: Layout | None = None,
    labels: Sequence[str] | None = None,
    problem: str | None = None,
    trust_remote_code: bool = False,
) -> ScoringModel:
    """The sequence-classification model of a folder or hub id; or, with labels, one that is made of it, to be trained.

    Args:
        length: most tokens that it is to read; by default what tokenizer and positions allow.
        layout: by default "chat" where the tokenizer has a chat template, "pair" where it parts two texts, else "text".
        labels: names of the outputs of a new head, in place of the one that is stored, if one is.
        problem: what the outputs are (see `ScoringModel.problem`).

    Raises:
        UsageError: no such model, a tokenizer that is not the model's, or weights that are missing: what is no reward model has
            no head, and one that was drawn at random says nothing.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    quiet_libraries()
    check_name(name)
    where = f"reward model '{name}'"
    head: dict[str, Any] = {}
    if labels is not None:
        names = dict(enumerate(labels))
        head = {"num_labels": len(names), "id2label": names, "label2id": {v: k for k, v in names.items()}}
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code, **head)
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise UsageError(f"{where} cannot be loaded: {reason(error)}") from error
    if problem is not None:
        config.problem_type = problem
    before = logging.get_verbosity()
    try:
        logging.set_verbosity_error()  # its report of what is missing is a table of many lines
        model, found = AutoModelForSequenceClassification.from_pretrained(
            name,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=labels is not None,
            output_loading_info=True,
        )
    except Exception as error:
        if out_of_memory(error):
            raise
        raise UsageError(f"{where} cannot be loaded: {reason(error)}") from error
    finally:
        logging.set_verbosity(before)
    _check_stored(where, model, found, new=labels is not None)
    _check_tokenizer(where, model, tokenizer)
    _fit_padding(where, model, tokenizer)
    most = _longest(model.config, tokenizer)
    if length is not None and length > most:
        raise UsageError(f"{where}: it reads {most} tokens at most, not length={length}")
    plain = "pair" if tokenizer.num_special_tokens_to_add(True) > tokenizer.num_special_tokens_to_add(False) else "text"
    layout = layout or ("chat" if tokenizer.chat_template else plain)  # type: ignore[assignment]
    if layout == "chat" and not tokenizer.chat_template:
        raise UsageError(f"{where}: layout=chat needs a chat template, which its tokenizer lacks: take layout={plain}")
    return ScoringModel(model.to(device).eval(), tokenizer, name, length or most, layout)  # type: ignore[arg-type]


def copy_of(model: ScoringModel) -> ScoringModel:
    """The same model once more, with weights of its own."""
    return ScoringModel(copy.deepcopy(model.model), model.tokenizer, model.name, model.length, model.layout)


def _check_stored(where: str, model: Any, found: Mapping[str, Any], *, new: bool) -> None:
    """The weights that are asked for are stored, but for a new head.

    Raises:
        UsageError: they are not.
    """

    def of_body(key: str) -> bool:
        # What pools the hidden states is learnt with the head, and comes without some encoders.
        return key.startswith(f"{model.base_model_prefix}.") and "pooler" not in key

    other = [str(key) for key, *_ in found.get("mismatched_keys") or () if of_body(str(key))]
    if other:
        raise UsageError(f"{where}: {_some(other)} is stored in another shape than its config.json asks for")
    missing = [key for key in found.get("missing_keys") or () if of_body(key)]
    if missing:
        raise UsageError(f"{where}: there is no {_some(missing)} among its weights, which would be drawn at random")
    head = [key for key in found.get("missing_keys") or () if not of_body(key)]
    if head and not new:
        raise UsageError(
            f"{where} has no head ({_some(head)} is not stored), which would be drawn at random, and so would its scores: name "
            "a sequence-classification model, or train one of it with `cohort reward-model`"
        )


def _check_tokenizer(where: str, model: Any, tokenizer: Any) -> None:
    """The tokenizer is the model's, as far as that can be seen.

    Raises:
        UsageError: it has ids that the model has no embedding for.
    """
    have = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > have:
        raise UsageError(
            f"{where}: its tokenizer has {len(tokenizer)} tokens and the model embeddings of {have}: that is the tokenizer of "
            "another model. Put the model's own into its folder (tokenizer.json, tokenizer_config.json)"
        )


def _fit_padding(where: str, model: Any, tokenizer: Any) -> None:
    """Texts of several lengths can go through the model together."""
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token is None:
            raise UsageError(f"{where}: its tokenizer has neither a pad_token nor an eos_token to fill texts up with")
        tokenizer.pad_token = tokenizer.eos_token
    # Models without attention to the right read their score at the last token that is no padding.
    if model.config.pad_token_id is None or model.config.pad_token_id != tokenizer.pad_token_id:
        model.config.pad_token_id = tokenizer.pad_token_id


def _longest(config: Any, tokenizer: Any) -> int:
    places = getattr(config, "max_position_embeddings", None) or NO_LIMIT
    if "roberta" in str(config.model_type) and places < NO_LIMIT:
        places -= (config.pad_token_id or 0) + 1  # its positions are counted from there
    return int(min(places, tokenizer.model_max_length, NO_LIMIT))


def _some(names: Sequence[str]) -> str:
    return shown(", ".join(sorted(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""), 200)
