"""Everything a run can be told, in one place; the command line, the file and the resolved `config.yaml` all use it.

A key stands in a section, and goes by its own name (`temperature`) or with its section's (`sampling.temperature`).
"""

from __future__ import annotations

import copy
import difflib
import json
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo

from cohort.analysis.configuration import flat
from cohort.environments import spec
from cohort.errors import UsageError, shown
from cohort.files import write_atomically
from cohort.rewards.spec import described
from cohort.training.reading import read_yaml, write_yaml
from cohort.training.rewarding import RewardsConfig
from cohort.training.sections import (
    CheckpointConfig,
    DatasetConfig,
    EpisodesConfig,
    EvaluationConfig,
    InferenceConfig,
    MachineConfig,
    OptimisationConfig,
    OutputConfig,
    PolicyConfig,
    SamplingConfig,
    Section,
    SharingConfig,
)
from cohort.training.values import OUTPUT, SAMPLING, Name, Option, kinds, number

# Keys that rows can be given for, from Python.
ROWS = ("data", "pairs", "eval_data")


def _described_rows(rows: Any) -> str:
    size = f"{len(rows)} rows" if hasattr(rows, "__len__") else "rows"
    return f"<{size} given from Python>"


class TrainConfig(Section):
    """Configuration of a training run: what tells it from others, and the sections."""

    method: Name = Field("grpo", description="a method or a composition, as in dapo+gdpo")
    seed: Annotated[int, BeforeValidator(number), Option(SAMPLING)] = Field(
        0, ge=0, lt=2**63, description="the same seed gives the same run"
    )
    out: Annotated[Name | None, Option(OUTPUT, "DIR")] = Field(
        None, description="folder of the run; default: runs/ and a name made of method and model"
    )
    policy: PolicyConfig = Field(default_factory=PolicyConfig)
    dataset: DatasetConfig = Field(default_factory=DatasetConfig)
    rewards: RewardsConfig = Field(default_factory=RewardsConfig)
    episodes: EpisodesConfig = Field(default_factory=EpisodesConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    sharing: SharingConfig = Field(default_factory=SharingConfig)
    inference: InferenceConfig = Field(default_factory=InferenceConfig)
    optimisation: OptimisationConfig = Field(default_factory=OptimisationConfig)
    machine: MachineConfig = Field(default_factory=MachineConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    output: OutputConfig = Field(default_factory=OutputConfig)

    def sections(self) -> dict[str, Any]:
        """The configuration as numbers, texts and lists, complete: keys of a section as a mapping.

        What came from Python and has no text (rows, functions) is described, not stored.
        """
        return {
            name: {key: _plain(key, value) for key, value in each} if isinstance(each, Section) else each
            for name, each in self
        }

    def plain(self) -> dict[str, Any]:
        """What `sections` gives, by the keys' own names."""
        return flat(self.sections())

    def given(self) -> dict[str, Any]:
        """What is not there by default alone, by the keys' own names."""
        out: dict[str, Any] = {}
        for key, (section, name) in PLACES.items():
            holder = getattr(self, section) if section else self
            if name in holder.model_fields_set:
                out[key] = getattr(holder, name)
        return out

    def save(self, path: Path) -> None:
        """Write the resolved configuration, by sections."""
        text = write_yaml(self.sections())
        write_atomically(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def _plain(key: str, value: Any) -> Any:
    if key in ("reward", "tools"):
        return [described(each) for each in value]
    if key == "environment":
        return None if value is None else spec.described(value)
    if key in ROWS:
        return value if value is None or isinstance(value, str) else _described_rows(value)
    return copy.copy(value)


SECTIONS: dict[str, type[Section]] = {
    name: info.annotation
    for name, info in TrainConfig.model_fields.items()
    if isinstance(info.annotation, type) and issubclass(info.annotation, Section)
}
# Sections whose keys mean nothing without the section's name.
DOTTED = {"checkpoint"}
# A key's own name -> its section, or "", and its name there.
PLACES = {
    f"{section}.{name}" if section in DOTTED else name: (section, name)
    for section, holder in ({"": TrainConfig} | SECTIONS).items()
    for name in holder.model_fields
    if section or name not in SECTIONS
}
FIELDS: dict[str, FieldInfo] = {
    key: (SECTIONS[section] if section else TrainConfig).model_fields[name] for key, (section, name) in PLACES.items()
}
_NAMES = {f"{section}.{name}" if section else name: key for key, (section, name) in PLACES.items()}


def keys() -> list[str]:
    """All configuration keys by their own names."""
    return list(PLACES)


def own_name(key: str) -> str:
    """The name of its own of a key that may be written with its section's: "sampling.top_p" -> "top_p"."""
    return _NAMES.get(key, key)


def _spread(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Keys with sections dotted: {"checkpoint": {"every": 3}} -> ("checkpoint.every", 3)."""
    for key, value in values.items():
        if isinstance(value, Section):
            value = {name: getattr(value, name) for name in value.model_fields_set}
        if key in SECTIONS and isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", each) for inner, each in value.items())
        else:
            yield key, value


class Layer:
    """Keys from one place, with how a key and its value are written there, for messages that speak of them.

    Attributes:
        values: by the keys' own names.

    Raises:
        UsageError: a key is given twice, with the section's name and without.
    """

    def __init__(self, values: Mapping[str, Any], written: Callable[[str, Any], str]) -> None:
        self.values: dict[str, Any] = {}
        self._keys: dict[str, str] = {}
        self._written = written
        for key, value in _spread(values):
            name = own_name(key)
            if name in self.values:
                raise UsageError(f"{written(key, value)}: it is given as '{self._keys[name]}', too")
            self.values[name], self._keys[name] = value, key

    def written(self, name: str, value: Any) -> str:
        """A key, by its own name, and a value as they are written there."""
        return self._written(self._keys[name], value)

    def without(self, names: Collection[str]) -> Layer:
        """The layer without some keys."""
        return Layer({self._keys[k]: v for k, v in self.values.items() if k not in names}, self._written)


def from_options(values: Mapping[str, Any]) -> Layer:
    """Keys given as options of the command line."""
    return Layer(values, lambda key, value: f"--{key.replace('_', '-')} {_quoted(value)}")


def from_set(items: list[str]) -> Layer:
    """Keys given as `KEY=VALUE` with --set.

    Raises:
        UsageError: as `parse_set`.
    """
    return Layer(parse_set(items), lambda key, value: f"--set {key}={_quoted(value)}")


def from_file(path: Path) -> Layer:
    """Keys of a configuration file.

    Raises:
        UsageError: as `read_config`; or what a key names was given from Python, and does not stand in the file.
    """
    layer = Layer(read_config(path), lambda key, value: f"{path}: {key} = {shown(value)}")
    for key in (*ROWS, "model", "reward", "environment", "tools"):
        given = layer.values.get(key)
        for value in given if isinstance(given, list) else [given]:
            if isinstance(value, str) and value.endswith(">") and _GIVEN.search(value):
                raise UsageError(
                    f"{path}: {key} was given from Python ({value}): name it, or start the run from Python"
                )
    return layer


_GIVEN = re.compile(r"<(?:Python function .*|.* given from Python)>$")


def from_python(values: Mapping[str, Any]) -> Layer:
    """Keys given as arguments."""
    return Layer(values, lambda key, value: f"{key}={shown(value)}")


def _quoted(value: Any) -> str:
    return _cut(shlex.quote(value if isinstance(value, str) else json.dumps(value, default=str)))


def _cut(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f"{text[: most - 40]}...{text[-30:]}"


def make_config(*layers: Layer | Mapping[str, Any]) -> TrainConfig:
    """A configuration from layers of keys, later ones winning; keys stand in their sections, are dotted, or go by their own
    names.

    Raises:
        UsageError: unknown key (with near names), or a value of the wrong type or out of range.
    """
    merged: dict[str, tuple[Layer, Any]] = {}
    for layer in (each if isinstance(each, Layer) else from_python(each) for each in layers):
        merged |= {name: (layer, value) for name, value in layer.values.items()}
    nested: dict[str, Any] = {}
    for key, (layer, value) in merged.items():
        if key not in PLACES:
            raise UsageError(f"{layer.written(key, value)}: there is no key '{_cut(key)}'; {_near(key)}")
        section, name = PLACES[key]
        (nested.setdefault(section, {}) if section else nested)[name] = value
    try:
        return TrainConfig(**nested)
    except ValidationError as error:
        first = error.errors()[0]
        where = [str(part) for part in first["loc"]]
        key = own_name(".".join(where[: 2 if where[0] in SECTIONS else 1]))
        at = merged[key][0].written(key, first.get("input"))
        raise UsageError(f"{at}: {first['msg'].removeprefix('Value error, ')}") from error


def _near(key: str) -> str:
    """What may have been meant by a key that there is not."""
    section, dot, last = key.rpartition(".")
    if section and own_name(last) in PLACES:
        return f"did you mean {last}?"
    inside = [name for name in PLACES if name.endswith(f".{key}")]
    near = inside or difflib.get_close_matches(key, _NAMES if dot or key in SECTIONS else [*PLACES, *SECTIONS], n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"keys are {', '.join(PLACES)}"


def read_config(path: Path) -> dict[str, Any]:
    """Keys of a configuration file (YAML).

    Raises:
        UsageError: no such file, or no mapping of keys.
    """
    try:
        written = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        why = "it is no text in UTF-8" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", error)
        raise UsageError(f"--config: {path} cannot be read: {why}") from error
    values = read_yaml(written, f"--config: {path}")
    if not isinstance(values, dict):
        what = "nothing" if values is None else shown(values)
        raise UsageError(f"--config: {path} holds no keys but {what}: write KEY: VALUE, a line each")
    for key in values:
        if not isinstance(key, str):
            raise UsageError(f"--config: {path}: {key!r} is no key: keys are texts, as in steps: 50")
    _refuse_rows(values, lambda key: f"--config: {path}: {key}")
    return values


def parse_set(items: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` texts, values read as YAML; where a key takes a text, as they stand.

    Raises:
        UsageError: no `=`, or a value that cannot be read.
    """
    out: dict[str, Any] = {}
    for item in items:
        key, equals, written = item.partition("=")
        key = key.strip()
        if not equals:
            raise UsageError(f"--set {_cut(item)}: write KEY=VALUE")
        value = read_yaml(written, f"--set {_cut(item)}")
        # The text 5 of a key that takes texts is no number.
        if takes_text(key) and isinstance(value, bool | int | float):
            value = written.strip()
        out[key] = value
    _refuse_rows(out, lambda key: f"--set {key}")
    return out


def takes_text(key: str) -> bool:
    """True for a key whose value is a text, also where it looks like a number."""
    info = FIELDS.get(own_name(key))
    types = set() if info is None else kinds(info.annotation)
    return own_name(key) in (*ROWS, "reward", "environment", "tools", "stop") or (str in types and bool not in types)


def _refuse_rows(values: Mapping[str, Any], name: Callable[[str], str]) -> None:
    """Rows come from Python or stand in a file of their own: config.yaml could not repeat the run."""
    for key, value in _spread(values):
        if own_name(key) in ROWS and isinstance(value, list | dict):
            raise UsageError(
                f"{name(key)} takes a file, a hub id or reasoning_gym:TASK?...: write the rows into a file"
            )
