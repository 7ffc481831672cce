"""Where the parts of `benchmarks.gpu_smoke` run, and what they have in common."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu import Shape


class NotHere(Exception):
    """A part needs what this machine does not have."""


@dataclass(frozen=True)
class Place:
    """Where parts run: a device, a folder for what they write, and the model of a shape that lies in it."""

    device: str
    folder: Path
    shape: Shape

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def cuda(self) -> bool:
        return self.device.startswith("cuda")

    def policy(self, dtype: str = "float32", **changes: Any) -> Any:
        """The model, loaded as a run loads it."""
        from cohort.training.build import load_policy
        from cohort.training.config import make_config

        given = {"model": str(self.model), "device": self.device, "dtype": dtype, **changes}
        return load_policy(make_config(given), lambda _: None)

    def groups(self) -> tuple[Any, Any]:
        """A batch of random tokens and its sequences."""
        from benchmarks.scaling import random_groups

        shape = self.shape
        return random_groups(shape.prompts, shape.group, shape.prompt_len, shape.max_new, shape.vocab)

    def options(self, name: str, **changes: Any) -> dict[str, Any]:
        """A run of a few steps, as `cohort.train` takes it."""
        shape = self.shape
        words = [f"w{3 + (7 * i) % (shape.vocab - 3)}" for i in range(2 * shape.prompts)]
        rows = [{"prompt": " ".join([word] * (shape.prompt_len // 2))} for word in words]
        sizes = {"prompts_per_step": shape.prompts, "group_size": shape.group, "max_new_tokens": shape.max_new}
        own = {"model": str(self.model), "device": self.device, "out": str(self.folder / name), "data": rows}
        rest = {"reward": [f"{__file__}:low"], "lr": 1e-4, "steps": 3, "tensorboard": False, "doctor": False, "seed": 1}
        return {**own, **sizes, **rest, "quiet": True, **changes}

    def train(self, name: str, method: str = "grpo", **changes: Any) -> Any:
        """A run that was made; nothing of it was skipped."""
        import cohort

        result = cohort.train(method, **self.options(name, **changes))
        assert result.metrics, "no step was made"
        assert not result.metrics[-1]["skipped_updates"], "loss or gradient was not finite"
        return result


def low(completions: list[str], **_: Any) -> list[float]:
    """The share of words whose number is even: what the parts reward."""
    found = [[int(number) % 2 == 0 for number in re.findall(r"\d+", text)] for text in completions]
    return [sum(each) / max(1, len(each)) for each in found]


def near(found: float, bound: float, what: str) -> float:
    """The number, which must not be beyond the bound.

    Raises:
        AssertionError: it is, or is no number.
    """
    assert found <= bound, f"{what}: {found:.3g}, at most {bound:.3g} was expected"
    return found


def peak(place: Place) -> float:
    """Most megabytes that were taken so far."""
    import torch

    from cohort.training.memory import peak as bytes_of

    return bytes_of(torch.device(place.device)) / 1e6
