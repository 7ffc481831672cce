"""A language model in this process that judges: any that transformers loads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cohort.errors import UsageError
from cohort.files import digest
from cohort.quiet import quiet_libraries
from cohort.rewards.judges.reply import Drawing, Reply
from cohort.seeds import derive

# Tokens of a batch, with padding and replies.
BATCH_TOKENS = 32_768


class Local:
    """A causal language model of a folder or of the hub, on the GPU where there is one.

    Raises:
        UsageError: it cannot be loaded.
    """

    def __init__(self, name: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        quiet_libraries()
        self.name = name
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(name, padding_side="left")
            self.model: Any = AutoModelForCausalLM.from_pretrained(name, dtype="auto", use_safetensors=True)
        except Exception as error:  # files of a model can be broken in any way
            nowhere = "" if Path(name).is_dir() else "there is no such folder, and as a name of the hub "
            why = str(error).strip().split("\n")[0]
            raise UsageError(
                f"judge '{name}': {nowhere}it cannot be loaded: {why}; name a model folder, a hub id, policy, or the URL of a "
                "server"
            ) from error
        self.model.eval().requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.convert_ids_to_tokens(0)
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        self.longest = int(limit) if isinstance(limit, int) else None
        self.identity = f"{name}#{_contents(name, self.model)}"

    def answer(
        self, questions: Sequence[list[dict[str, Any]]], drawing: Drawing, *, seconds: float, paid: Callable[[], bool]
    ) -> list[Reply]:
        """A reply to each question, in batches of similar length.

        Args:
            seconds: that a batch may take; what it has written by then is the reply, unfinished.
            paid: () -> False if no further question may be asked.
        """
        tokens = [self._tokens(messages) for messages in questions]
        replies = [Reply(spent=True)] * len(questions)
        fits = []
        for i, each in enumerate(tokens):
            if self.longest is not None and len(each) + drawing.tokens > self.longest:
                why = f"the question has {len(each)} tokens, and with {drawing.tokens} of the reply (judge_reply) it is longer"
                replies[i] = Reply(error=f"the judge '{self.name}': {why} than its {self.longest}")
            elif paid():
                fits.append(i)
        fits.sort(key=lambda i: len(tokens[i]))
        while fits:
            longest = len(tokens[fits[-1]]) + drawing.tokens
            batch = fits[-max(1, BATCH_TOKENS // longest) :]
            del fits[-len(batch) :]
            for i, reply in zip(batch, self._batch([tokens[i] for i in batch], drawing, seconds), strict=True):
                replies[i] = reply
        return replies

    def _tokens(self, messages: list[dict[str, Any]]) -> list[int]:
        if self.tokenizer.chat_template is None:
            text = "\n\n".join(str(message["content"]) for message in messages) + "\n\n"
            return list(self.tokenizer(text)["input_ids"])
        how = {"add_generation_prompt": True, "return_dict": True}
        try:
            return list(self.tokenizer.apply_chat_template(messages, **how)["input_ids"])
        except Exception:  # templates that refuse a system message raise an error of Jinja's
            if messages[0]["role"] != "system":
                raise
            told = f"{messages[0]['content']}\n\n{messages[1]['content']}"
            return self._tokens([{**messages[1], "content": told}, *messages[2:]])

    def _batch(self, asked: Sequence[list[int]], drawing: Drawing, seconds: float) -> list[Reply]:
        width, device = max(map(len, asked)), self.model.device
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(each)) + each for each in asked], device=device)
        mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in asked], device=device)
        how: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if drawing.temperature:
            how |= {"do_sample": True, "temperature": drawing.temperature}
        # The global generators belong to the run.
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(derive(drawing.sample, *asked[0]))
            out = self.model.generate(
                ids, attention_mask=mask, max_new_tokens=drawing.tokens, max_time=seconds, pad_token_id=pad, **how
            )
        ends = self.model.generation_config.eos_token_id
        stops = {*(ends if isinstance(ends, list) else [ends]), self.tokenizer.eos_token_id} - {None}
        return [self._reply(row[width:].tolist(), stops, len(each)) for row, each in zip(out, asked, strict=True)]

    def _reply(self, written: list[int], stops: set[int], read: int) -> Reply:
        end = next((i for i, token in enumerate(written) if token in stops), None)
        kept = written if end is None else written[:end]
        reply = Reply(self.tokenizer.decode(kept, skip_special_tokens=True), read, len(kept))
        return reply if end is not None else replace(reply, finished=False)


def _contents(name: str, model: Any) -> str:
    """What the model is known by: its revision on the hub, or checksums of its files."""
    folder = Path(name)
    if not folder.is_dir():
        return str(getattr(model.config, "_commit_hash", None) or "")
    files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".json", ".jinja", ".model"))
    return "".join(f"{path.name}:{digest(path)[:16]};" for path in files)
