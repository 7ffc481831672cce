"""Run one case of a vector file through the code that training uses, and compare.

A case of kind `loss` is run by the general path: the recipe with the case's configuration, over GRPO for the axes that
the method leaves alone, on a `Batch` of the case's inputs, through the functions of `BoundMethod` that the loop calls.
Whatever is particular to a method stands in `adapters/<slug>.py`, which may define

    HYPER      hyperparameters of every loss case that the vector file does not name
    RENAME     configuration key -> hyperparameter
    IGNORE     configuration keys that describe the data, not the method
    FIELDS     input -> (field of the batch, "token" | "rollout"), where the shape alone does not tell
    OUTPUTS    expected key -> function of the Run, for intermediate results
    hyper(case)        further hyperparameters, where they stand among the inputs
    batch(case)        the batch of a loss case, where the inputs are laid out in another way
    info(case)         where the run stands, if the case says so
    NAMED              names of the rewards that the batch has after its own
    states(run)        states in place of those at the start of a run
    KIND_<kind>(case)  outputs of a case of another kind, by calling the recipe's own functions

Every key of `expected` is compared; one that nothing produces fails the case.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from cohort import registry
from cohort.methods import BoundMethod, Loss, Method, Prepared
from cohort.types import Batch, StepInfo
from tests.helpers import info_of

VECTORS = Path(os.environ.get("COHORT_GOLDEN") or Path(__file__).parent / "vectors")

# Names that differ between files (see the README of the vectors).
ALIASES = {
    "adv_eps": "adv_eps",
    "eps_std": "adv_eps",
    "eps": "adv_eps",
    "std_ddof": "std_ddof",
    "adv_std": "std_ddof",
    "kl_beta": "kl_beta",
    "kl_coef": "kl_beta",
    "beta": "kl_beta",
    "kl": "kl",
    "clip_low": "clip_low",
    "clip_high": "clip_high",
    "aggregation": "aggregation",
}
VALUES = {
    "std_ddof": {"population": 0, "sample": 1},
    "aggregation": {
        "seq": "seq",
        "seq-mean-token-mean": "seq",
        "mean-over-rollouts": "seq",
        "token": "token",
        "token-mean": "token",
        "sum-tokens-mean-rollouts": "token-sum",
        "seq-mean-token-mean over kept rollouts": "seq",
    },
    "entropy_high": {"log(G)": None},
}
# Input -> field of the batch, where the names differ.
FIELDS = {
    "tokens": "token_ids",
    "actions": "token_ids",
    "correct": "accuracy",
    "lengths": "length",
    "token_advantages": "advantages",
}
ROLLOUT_MATRICES = {"reward_components"}
LEAVES = ("logp", "entropy", "logits", "aug_logp")


def adapter(slug: str) -> ModuleType | None:
    """The module of a method's particulars, if it has one."""
    name = f"{__package__}.adapters.{slug.replace('-', '_')}"
    return importlib.import_module(name) if importlib.util.find_spec(name) else None


def load(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def tensor(values: Any) -> Tensor:
    """float64 (or int64, bool) tensor of nested lists."""
    out = torch.as_tensor(values)
    # Anew from the numbers: torch reads Python floats as float32 unless told otherwise.
    return torch.as_tensor(values, dtype=torch.float64) if out.is_floating_point() else out


def hyperparameters(
    slug: str, config: dict[str, Any], extra: ModuleType | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(of the method, of GRPO for the axes that the method leaves alone), from a case's configuration."""
    taken, host = registry.signature(slug), registry.signature("grpo")
    rename, ignore = getattr(extra, "RENAME", {}), getattr(extra, "IGNORE", ())
    own: dict[str, Any] = dict(getattr(extra, "HYPER", {}))
    rest: dict[str, Any] = {"kl_beta": 0.0}
    for key, value in config.items():
        if key in ignore:
            continue
        name = rename.get(key, key if key in taken else ALIASES.get(key, key))
        value = VALUES.get(name, {}).get(value, value) if isinstance(value, str) else value
        if isinstance(value, list):
            value = tuple(value)
        if name in taken:
            own[name] = value
        elif name in host:
            rest[name] = value
        else:
            raise KeyError(f"{slug}: nothing takes the configuration key '{key}'")
    return own, rest


def make_method(slug: str, config: dict[str, Any], extra: ModuleType | None) -> Method:
    own, rest = hyperparameters(slug, config, extra)
    return registry.recipe(slug)(**own).over(registry.recipe("grpo")(**rest))


def make_batch(inputs: dict[str, Any], extra: ModuleType | None = None) -> tuple[Batch, dict[str, Tensor]]:
    """The batch of a case's inputs, and its leaves: the fields with respect to which gradients may be asked for."""
    kinds = getattr(extra, "FIELDS", {})
    count = len(inputs.get("mask") or inputs.get("group") or inputs.get("rewards") or inputs.get("correct"))
    length = inputs.get("length", inputs.get("lengths"))
    if "mask" in inputs:
        mask = tensor(inputs["mask"]).bool()
    elif length is not None:
        mask = torch.arange(max(1, int(max(length)))) < torch.as_tensor(length)[:, None]
    else:
        mask = torch.ones(count, 1, dtype=torch.bool)
    tokens: dict[str, Tensor] = {}
    rollouts: dict[str, Tensor] = {}
    leaves: dict[str, Tensor] = {}
    for name, value in inputs.items():
        if name in ("mask", "group") or (name in kinds and kinds[name] is None):
            continue
        field, kind = kinds.get(name, (FIELDS.get(name, name), None))
        value = tensor(value)
        if kind is None:
            matrix = value.ndim >= 2 and value.shape[:2] == mask.shape and name not in ROLLOUT_MATRICES
            kind = "token" if matrix else "rollout"
        if name in LEAVES and kind == "token":
            leaves[name] = value = value.requires_grad_()
        (tokens if kind == "token" else rollouts)[field] = value
    rollouts["group"] = tensor(inputs["group"]) if "group" in inputs else torch.arange(count)
    for name in ("accuracy", "rewards", "length"):
        if name in rollouts:
            rollouts[name] = rollouts[name].double()
    if "accuracy" not in rollouts and "rewards" in rollouts:
        rollouts["accuracy"] = rollouts["rewards"]
    if "rewards" not in rollouts:
        rollouts["rewards"] = rollouts.get("accuracy", torch.zeros(count, dtype=torch.float64))
    if "entropy" in tokens:
        tokens.setdefault("old_entropy", tokens["entropy"].detach())
    batch = Batch(mask=mask, tokens=tokens, rollouts=rollouts)
    # Each group stands for one row of a data set.
    return batch.with_rollouts(row=batch.groups.index), leaves


@dataclass
class Run:
    """One loss case, stage by stage, as training does it."""

    slug: str
    case: dict[str, Any]
    extra: ModuleType | None

    @property
    def config(self) -> dict[str, Any]:
        return self.case.get("config") or {}

    @property
    def inputs(self) -> dict[str, Any]:
        return self.case["inputs"]

    @cached_property
    def method(self) -> Method:
        more = getattr(self.extra, "hyper", lambda case: {})(self.case)
        return make_method(self.slug, {**self.config, **more}, self.extra)

    @cached_property
    def _made(self) -> tuple[Batch, dict[str, Tensor]]:
        make = getattr(self.extra, "batch", None)
        return make(self.case) if make else make_batch(self.inputs, self.extra)

    @property
    def leaves(self) -> dict[str, Tensor]:
        return self._made[1]

    @property
    def batch(self) -> Batch:
        """As scored."""
        return self._made[0]

    @cached_property
    def info(self) -> StepInfo:
        made = getattr(self.extra, "info", lambda case: StepInfo())(self.case)
        return replace(made, reward_names=info_of(self.batch, *getattr(self.extra, "NAMED", ())).reward_names)

    @cached_property
    def bound(self) -> BoundMethod:
        """The method at the step's update."""
        states = getattr(self.extra, "states", lambda run: run.method.init(size=self.batch.size))(self)
        bound = self.method.bind(states, self.info)
        return bound.with_states(bound.on_rollouts(self.batch, [None] * self.batch.size))

    @property
    def states(self) -> dict[str, Any]:
        return dict(self.bound.states)

    @cached_property
    def prepared(self) -> Prepared:
        return self.bound.prepare(self.batch)

    @property
    def shaped(self) -> Batch:
        return self.prepared.shaped

    @property
    def kept(self) -> Tensor:
        """Rows that the filters before the advantage keep."""
        return self.prepared.before

    @property
    def assigned(self) -> Batch:
        """With advantages, before the filters that come after them."""
        return self.batch if "token_advantages" in self.inputs else self.prepared.assigned

    @property
    def kept_after(self) -> Tensor:
        return (self.prepared.trained[:, None] == self.kept).nonzero()[:, 1]

    @property
    def trained(self) -> Batch:
        """What the loss is taken on."""
        return self.batch if "token_advantages" in self.inputs else self.prepared.batch

    @cached_property
    def loss(self) -> Loss:
        return self.bound.loss(self.trained)

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        names = list(self.leaves)
        if not self.loss.total.requires_grad:
            return {name: torch.zeros_like(leaf) for name, leaf in self.leaves.items()}
        grads = torch.autograd.grad(
            self.loss.total, [self.leaves[n] for n in names], allow_unused=True, materialize_grads=True
        )
        return dict(zip(names, grads, strict=True))

    def scatter(self, values: Tensor) -> Tensor:
        """Values of the kept rows in the order of all rows, 0 elsewhere."""
        out = torch.zeros((self.batch.size, *values.shape[1:]), dtype=values.dtype)
        out[self.kept] = values
        return out

    @property
    def advantages(self) -> Tensor:
        """[N] or [N, T], in whichever shape the case expects them."""
        want = self.case["expected"].get("advantages")
        per_token = bool(want) and isinstance(want[0], list)
        if per_token:
            return self.scatter(self.assigned.advantages)
        if "outcome_advantage" in self.assigned and not self.method.credit:
            return self.scatter(self.assigned["outcome_advantage"])
        # The same at every token of a rollout.
        return self.scatter(torch.where(self.assigned.mask, self.assigned.advantages, -torch.inf).amax(1))

    def output(self, key: str) -> Any:
        """What the run has for an expected key."""
        special = getattr(self.extra, "OUTPUTS", {})
        if key in special:
            return special[key](self)
        if key.startswith("grad_"):
            return self.gradients[key.removeprefix("grad_")]
        if key == "loss":
            return self.loss.total
        if key == "advantages":
            return self.advantages
        if key == "rewards":
            return self.shaped.rewards
        raise KeyError(f"nothing produces '{key}'")


def run_case(slug: str, case: dict[str, Any]) -> None:
    """Run a case and raise AssertionError at the first expected value that does not come out."""
    extra = adapter(slug)
    kind = case["kind"]
    special = getattr(extra, f"KIND_{kind}", None)
    if special is not None:
        outputs = special(case)
    elif kind in ("loss", "advantage", "credit", "reward", "trust_region", "filter", "regularizer", "objective"):
        run = Run(slug, case, extra)
        outputs = {key: run.output(key) for key in case["expected"]}
    else:
        raise AssertionError(f"no adapter runs cases of kind '{kind}' for {slug}")
    missing = set(case["expected"]) - set(outputs)
    assert not missing, f"nothing produces {sorted(missing)}"
    for key, want in case["expected"].items():
        compare(outputs[key], want, case.get("tolerance") or 0.0, key)


def plain(value: Any) -> Any:
    """Tensors as nested lists."""
    if isinstance(value, Tensor):
        return value.detach().tolist()
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def compare(got: Any, want: Any, tolerance: float, where: str) -> None:
    """Absolute tolerance, relative above 1; shapes, keys and None must agree."""
    got = plain(got)
    if isinstance(want, dict):
        assert isinstance(got, dict), f"{where}: got {got!r}, expected {want!r}"
        assert set(got) >= set(want), f"{where}: lacks {sorted(set(want) - set(got))}"
        for key, value in want.items():
            compare(got[key], value, tolerance, f"{where}[{key}]")
    elif isinstance(want, list):
        assert isinstance(got, list), f"{where}: got {got!r}, expected {want!r}"
        assert len(got) == len(want), f"{where}: got {got!r}, expected {want!r}"
        for i, (g, w) in enumerate(zip(got, want, strict=True)):
            compare(g, w, tolerance, f"{where}[{i}]")
    elif isinstance(want, (bool, int, float)) and not isinstance(want, str):
        assert isinstance(got, (bool, int, float)), f"{where}: got {got!r}, expected {want!r}"
        limit = tolerance * max(1.0, abs(want))
        assert math.isfinite(got) or got == want, f"{where}: got {got!r}, expected {want!r}"
        assert abs(got - want) <= limit, f"{where}: got {got!r}, expected {want!r} (tolerance {limit:g})"
    else:
        assert got == want, f"{where}: got {got!r}, expected {want!r}"
