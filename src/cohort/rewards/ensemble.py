"""A reward model as it is asked: one model or several trained alike, what it reads of a completion, and what it gives out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cohort.errors import UsageError
from cohort.policies.scoring import (
    EXCLUSIVE,
    PASS_TOKENS,
    REGRESSION,
    Encoded,
    Layout,
    ScoringModel,
    Source,
    load_scoring,
)
from cohort.reductions.scores import disagreement, lower_bound
from cohort.rewards.verifiers import text_of
from cohort.signals.answers import inside_thought, outside_thought

# In a reward model's folder: what `cohort reward-model` knows of it that its config.json does not say.
RECORD = "reward_model.json"
PARTS = ("all", "thought", "answer")
# What is made of an output: the score as it is, its sigmoid, the probability among all labels, or the mean of the labels (which
# are numbers) by their probabilities.
OUTPUTS = ("score", "sigmoid", "softmax", "expected")


@dataclass(frozen=True)
class Record:
    """What a reward model's folder says of it.

    Attributes:
        members: folders of the models that were trained alike, relative to it; the first is the folder itself.
        scale, offset: for each member and label, score = scale * output + offset.
        layout, length, part, prompt: what it reads (see `RewardModel`); None for what transformers' files say.
        trained, evaluated: how it was made, and what it was measured to be.
    """

    members: tuple[str, ...] = (".",)
    scale: tuple[tuple[float, ...], ...] = ()
    offset: tuple[tuple[float, ...], ...] = ()
    layout: Layout | None = None
    length: int | None = None
    part: str = "all"
    prompt: bool = True
    trained: dict[str, Any] = field(default_factory=dict)
    evaluated: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        text = json.dumps({"version": 1, **asdict(self)}, indent=2)
        (folder / RECORD).write_text(text + "\n", encoding="utf-8")


def read_record(name: str) -> Record:
    """The record of a folder; one that says nothing where there is none, as of a model of the hub.

    Raises:
        UsageError: it cannot be read.
    """
    path = Path(name) / RECORD
    if not path.is_file():
        return Record()
    try:
        held = json.loads(path.read_bytes())
        known = {each.name for each in fields(Record)}
        given = {key: value for key, value in held.items() if key in known}
        for key in ("members", "scale", "offset"):
            given[key] = tuple(tuple(each) if isinstance(each, list) else each for each in given[key])
        return Record(**given)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} cannot be read ({type(error).__name__}: {error}): write the model anew with `cohort reward-model`, or "
            "remove the file to use the first member as it is"
        ) from error


@dataclass
class RewardModel:
    """One model or several, whose scores are averaged.

    Attributes:
        part: what is read of a completion: "all", its marked reasoning ("thought"), or what stands outside of it ("answer").
        prompt: the prompt is read too.
        tokens: of a forward pass.
    """

    members: Sequence[ScoringModel]
    record: Record = field(default_factory=Record)
    part: str = "all"
    prompt: bool = True
    tokens: int = PASS_TOKENS
    _last: tuple[Any, Any, Tensor, int] | None = None

    @classmethod
    def load(
        cls,
        name: str,
        *,
        device: torch.device | str,
        dtype: torch.dtype | str,
        length: int | None = None,
        layout: Layout | None = None,
        part: str | None = None,
        prompt: bool | None = None,
        tokens: int = PASS_TOKENS,
    ) -> RewardModel:
        """The reward model of a folder or hub id; what is not said is taken from its record.

        Raises:
            UsageError: it cannot be loaded (see `load_scoring`), or its members do not go together.
        """
        record = read_record(name)
        how: dict[str, Any] = {"length": length or record.length, "layout": layout or record.layout}
        folders = [name if each == "." else str(Path(name) / each) for each in record.members]
        members = [load_scoring(folder, device=device, dtype=dtype, **how) for folder in folders]
        for member in members[1:]:
            if member.labels != members[0].labels:
                raise UsageError(f"reward model '{name}': {member.name} has other labels than its first member")
        return cls(members, record, part or record.part, record.prompt if prompt is None else prompt, tokens)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.members[0].labels

    @property
    def problem(self) -> str:
        return self.members[0].problem

    def encode(self, prompt: Source | None, completion: Any) -> Encoded:
        """A prompt and its completion, a text or messages, as the models read them."""
        if self.part != "all":
            text = text_of(completion)
            completion = inside_thought(text) if self.part == "thought" else outside_thought(text)
        return self.members[0].encode("" if prompt is None or not self.prompt else prompt, completion)

    def scores(self, prompts: Sequence[Source | None], completions: Sequence[Any]) -> tuple[Tensor, int]:
        """[M, n, K] scores by member and label, and how many of the n texts were cut.

        Texts that are the same are scored once, and a call with the texts of the last one is not scored again, so that the
        labels of one model cost one pass. What other calls were about does not matter: a resumed run gets the same numbers.
        """
        if self._last is not None and self._last[0] == prompts and self._last[1] == completions:
            return self._last[2], self._last[3]
        encoded = [self.encode(*pair) for pair in zip(prompts, completions, strict=True)]
        place: dict[tuple[int, ...], int] = {}
        at = [place.setdefault(tuple(each.inputs["input_ids"]), len(place)) for each in encoded]
        once = [encoded[at.index(i)] for i in range(len(place))] if len(place) < len(encoded) else encoded
        found = torch.stack(
            [self.scaled(i, member.outputs(once, tokens=self.tokens)) for i, member in enumerate(self.members)]
        )
        scores, cut = found[:, at], sum(each.cut > 0 for each in encoded)
        self._last = (list(prompts), list(completions), scores, cut)
        return scores, cut

    def scaled(self, member: int, outputs: Tensor) -> Tensor:
        """[n, K] scores of a member's outputs."""
        record = self.record
        if record.scale:
            outputs = outputs * torch.tensor(record.scale[member])
        return outputs + torch.tensor(record.offset[member]) if record.offset else outputs

    def output(self, label: str | None, output: str | None) -> tuple[int | None, str]:
        """Which label (None: all of them together) is given out, and what is made of it, as asked for or by default.

        Raises:
            UsageError: there is no such label, or several and none was named.
        """
        names = ", ".join(self.labels)
        if label is not None and label not in self.labels:
            raise UsageError(f"reward model '{self.members[0].name}' has no label '{label}' (it has: {names})")
        return chosen_output(self.members[0].name, self.labels, self.problem, label, output)

    def values(self, scores: Tensor, place: int | None, output: str) -> Tensor:
        """[M, n] what each member gives out, of scores [M, n, K]; see `output`."""
        if output == "expected":
            numbers = torch.tensor([float(str(leading_number(label))) for label in self.labels])
            return scores.softmax(-1) @ numbers
        assert place is not None
        if output == "softmax":
            return scores.softmax(-1)[..., place]
        return scores[..., place].sigmoid() if output == "sigmoid" else scores[..., place]


def chosen_output(
    name: str, labels: Sequence[str], problem: str, label: str | None, output: str | None
) -> tuple[int | None, str]:
    """See `RewardModel.output`."""
    usual = {REGRESSION: "score", EXCLUSIVE: "softmax"}.get(problem, "sigmoid")
    if label is None and len(labels) > 1 and output in (None, "expected") and problem == EXCLUSIVE:
        if any(leading_number(each) is None for each in labels):
            raise UsageError(
                f"reward model '{name}' gives probabilities of labels that exclude each other ({', '.join(labels)}), and "
                f"adding them up says nothing: name the one to reward, as in rm:{name}#{labels[-1]}"
            )
        return None, "expected"
    if output == "expected":
        raise UsageError(
            f"reward model '{name}': output=expected is of all labels that exclude each other, so name none"
        )
    if output == "softmax" and len(labels) == 1:
        raise UsageError(
            f"reward model '{name}' has one label, whose probability among all is 1: leave output=softmax out"
        )
    place = 0 if label is None else list(labels).index(label)
    return place, output or usual


def leading_number(label: str) -> float | None:
    """The number that a label is, or begins with, as "4 stars" or "LABEL_3" do; None of others."""
    word = label.strip().split()[0] if label.strip() else ""
    try:
        return float(word.removeprefix("LABEL_"))
    except ValueError:
        return None


def reduced(values: Tensor, lcb: float) -> tuple[Tensor, Tensor]:
    """[n] the members' mean less lcb times their standard deviation, of values [M, n], and that deviation."""
    return lower_bound(values, lcb), disagreement(values)
