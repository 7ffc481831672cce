"""The builtin reward rm: what a reward model says, a sequence classification of transformers.

    rm:MODEL[#LABEL][?SETTING=VALUE&...]

MODEL is a folder (such as `cohort reward-model` writes) or a hub id. A model with several labels that are values, or
probabilities each of its own, is as many components, with the names of the labels; #LABEL is one of them. Of labels that
exclude each other one is to be named, unless they are numbers ("4 stars"): their expected value is the reward.

Settings: lcb=K (mean less K standard deviations of an ensemble's members), output (score, sigmoid, softmax, expected),
part (all, thought, answer: what is read of a completion), prompt (yes, no: whether the prompt is read), layout (chat, pair,
text), length (most tokens that are read; the beginning is cut), tokens (of a forward pass), device.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl

from cohort.errors import UsageError, shown
from cohort.rewards.kinds import Function, Kind, Placed

if TYPE_CHECKING:
    from cohort.rewards.ensemble import RewardModel

# Where reward models are, unless they say so themselves; a run sets its own device.
DEVICE: ContextVar[str] = ContextVar("device", default="auto")
FORM = "rm:MODEL[#LABEL][?SETTING=VALUE&...]"
CHOICES: Mapping[str, tuple[str, ...]] = {
    "output": ("score", "sigmoid", "softmax", "expected"),
    "part": ("all", "thought", "answer"),
    "prompt": ("yes", "no"),
    "layout": ("chat", "pair", "text"),
}
NUMBERS: Mapping[str, Callable[[str], float]] = {"lcb": float, "length": int, "tokens": int}
# Rows whose prompts are tried before anything is drawn, and the share of unknown tokens from which they are refused.
TRIED, UNKNOWN = 64, 0.2
# The name of a component without a label.
NAME = "rm"


@dataclass(frozen=True)
class Asked:
    """A reward model as it was asked for.

    Attributes:
        settings: pairs of a setting and its value.
    """

    model: str
    label: str | None = None
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def given(self) -> dict[str, Any]:
        return dict(self.settings)

    @property
    def text(self) -> str:
        """As it is written behind rm:."""
        settings = "&".join(f"{key}={value}" for key, value in self.settings)
        return self.model + (f"#{self.label}" if self.label else "") + (f"?{settings}" if settings else "")


def read(argument: str) -> Asked:
    """What stands behind rm:.

    Raises:
        UsageError: no model, or a setting that there is not.
    """
    what, _, query = argument.partition("?")
    model, _, label = what.partition("#")
    if not model:
        raise UsageError(f"reward 'rm:{argument}': name a model, as in {FORM}: a folder or a hub id")
    settings: dict[str, Any] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        known = (*CHOICES, *NUMBERS, "device")
        if key not in known or key in settings:
            what = "there is no setting" if key not in known else "there are two settings"
            raise UsageError(f"reward 'rm:{argument}': {what} {shown(key)}; there are {', '.join(known)}")
        if key in CHOICES and value not in CHOICES[key]:
            raise UsageError(f"reward 'rm:{argument}': {key} is one of {', '.join(CHOICES[key])}, not {shown(value)}")
        if key in NUMBERS:
            settings[key] = _number(argument, key, value)
        else:
            settings[key] = value
    return Asked(model, label or None, tuple(settings.items()))


def _number(argument: str, key: str, text: str) -> float:
    try:
        value = NUMBERS[key](text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9 or (key != "lcb" and not value):
        raise UsageError(
            f"reward 'rm:{argument}': {key} is a number {'from 0' if key == 'lcb' else 'from 1'} on, not {shown(text)}"
        )
    return value


def settings_of(model: str) -> tuple[tuple[str, ...], str]:
    """(labels, problem) of a model, by its configuration alone; (empty, "") where that cannot be read."""
    config: dict[str, Any] = {}
    path = Path(model).expanduser() / "config.json"
    try:
        if path.is_file():
            config = json.loads(path.read_bytes())
        elif "/" in model and not Path(model).parent.is_dir():
            config = _of_hub(model)
        names = config.get("id2label") or {str(i): f"LABEL_{i}" for i in range(int(config.get("num_labels", 2)))}
        labels = tuple(str(names[key]) for key in sorted(names, key=int))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return (), ""
    if not config:
        return (), ""
    problem = config.get("problem_type") or ("regression" if len(labels) == 1 else "single_label_classification")
    return labels, str(problem)


@lru_cache(maxsize=8)
def _of_hub(model: str) -> dict[str, Any]:
    from transformers import AutoConfig

    from cohort.quiet import quiet_libraries

    quiet_libraries()
    try:
        config: dict[str, Any] = AutoConfig.from_pretrained(model).to_dict()
    except Exception:
        return {}  # what is wrong is said when the model is loaded
    return config


def components(argument: str) -> dict[str, str]:
    """Name -> argument of the components that an argument stands for."""
    asked = read(argument)
    if asked.label is not None:
        return {asked.label: argument}
    labels, problem = settings_of(asked.model)
    if len(labels) < 2 or problem == "single_label_classification":
        return {NAME: argument}
    return {label: replace(asked, label=label).text for label in labels}


@lru_cache(maxsize=4)
def _loaded(model: str, settings: tuple[tuple[str, Any], ...], device: str) -> RewardModel:
    """The model that is asked for, which the components of its labels share."""
    import torch

    from cohort.rewards.ensemble import RewardModel

    how = dict(settings)
    if "prompt" in how:
        how["prompt"] = how["prompt"] == "yes"
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        where = torch.device(device)
        torch.zeros(1, device=where)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"reward model '{model}': there is no device {shown(device)} here: {str(error).splitlines()[0]}"
        ) from error
    return RewardModel.load(model, device=where, dtype=torch.float32 if where.type == "cpu" else "auto", **how)


def load(asked: Asked, device: str) -> RewardModel:
    """The model that is asked for, loaded once however often it is asked."""
    own = tuple((key, value) for key, value in asked.settings if key not in ("lcb", "output", "device"))
    return _loaded(asked.model, own, asked.given.get("device", device))


def make(argument: str) -> Function:
    """The reward of a reward model, which is loaded when it is first asked, or by `check`.

    Raises:
        UsageError: the argument cannot be read, there is no such folder, or the model has no such label.
    """
    from cohort.policies.loading import check_name
    from cohort.rewards.ensemble import chosen_output, reduced

    asked, device = read(argument), DEVICE.get()
    check_name(asked.model)
    labels, problem = settings_of(asked.model)
    if labels:
        if asked.label is not None and asked.label not in labels:
            raise UsageError(
                f"reward 'rm:{argument}': the model has no label '{asked.label}' (it has: {', '.join(labels)})"
            )
        chosen_output(asked.model, labels, problem, asked.label, asked.given.get("output"))
    told: list[str] = []

    def score(
        prompts: Sequence[Any], completions: Sequence[Any], component: str, log_extra: Any, log_metric: Any, **_: Any
    ) -> list[float | None]:
        model = load(asked, device)
        place, output = model.output(asked.label, asked.given.get("output"))
        scores, cut = model.scores(prompts, completions)
        values, apart = reduced(model.values(scores, place, output), asked.given.get("lcb", 0.0))
        if len(model.members) > 1:
            log_metric(f"rm/{component}/disagreement", float(apart.mean()))
            log_extra(f"rm/{component}/disagreement", apart.tolist())
        if cut:
            log_metric(f"rm/{component}/cut", cut / len(completions))
            if not told:
                told.append(component)
                most = model.members[0].length
                print(
                    f"reward '{component}': {cut} of {len(completions)} texts are longer than the {most} tokens that the "
                    f"reward model reads: their beginning was left out (rm/{component}/cut is their share)"
                )
        return cast("list[float | None]", values.double().tolist())

    return score


def check(argument: str, rows: Sequence[Placed]) -> None:
    """The model can be loaded, gives out what is asked for, and can read the rows' prompts.

    Raises:
        UsageError: it cannot; says why, and what to do.
    """
    asked = read(argument)
    model = load(asked, DEVICE.get())
    model.output(asked.label, asked.given.get("output"))
    if asked.given.get("lcb") and len(model.members) == 1:
        raise UsageError(
            f"reward 'rm:{argument}': lcb subtracts what the members of an ensemble disagree by, and this is one model: leave "
            "it out, or train several (`cohort reward-model --members 3`)"
        )
    found = [(where, row["prompt"]) for where, row in rows if row.get("prompt")][:TRIED]
    for where, prompt in found:
        try:
            model.encode(prompt, "")
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from error
    from cohort.policies.scoring import said

    texts = [said(prompt) for _, prompt in found] if model.prompt else []
    texts += [str(row["answer"]) for _, row in rows[:TRIED] if row.get("answer")]
    unknown = model.members[0].unknown_share(texts)
    if unknown > UNKNOWN:
        raise UsageError(
            f"reward 'rm:{argument}': {unknown:.0%} of the tokens that its tokenizer makes of {rows[0][0]} and others are "
            "unknown to it: it was made for other texts (another alphabet or language). Take a reward model that reads these"
        )


def files(argument: str) -> list[Path]:
    """The files of a model's folder that its scores depend on; none of one on the hub."""
    folder = Path(read(argument).model).expanduser()
    kinds = ("*.safetensors", "config.json", "reward_model.json", "tokenizer*", "*.jinja")
    return sorted({path.resolve() for kind in kinds for path in folder.rglob(kind)}) if folder.is_dir() else []


KINDS = (Kind("rm", (FORM,), make, check=check, place="run", components=components, files=files),)
