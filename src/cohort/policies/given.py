"""Models that come from Python as objects, with their tokenizers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from cohort.errors import UsageError
from cohort.policies.causal_lm import CausalLM
from cohort.policies.loading import check_finite


@dataclass(frozen=True)
class GivenModel:
    """A model of transformers (or its peft wrapper) and its tokenizer."""

    model: Any
    tokenizer: Any

    @classmethod
    def of(cls, model: Any, tokenizer: Any = None) -> GivenModel | None:
        """What was given as `model` and `tokenizer`; None where that is a name.

        Raises:
            UsageError: it is neither a name nor a model with its tokenizer.
        """
        from transformers import PreTrainedTokenizerBase

        if isinstance(model, tuple) and len(model) == 2 and tokenizer is None:
            model, tokenizer = model
        if isinstance(model, torch.nn.Module) and hasattr(model, "config"):
            if isinstance(tokenizer, PreTrainedTokenizerBase):
                return cls(model, tokenizer)
            what = "none was given" if tokenizer is None else f"not {type(tokenizer).__name__}"
            raise UsageError(
                f"model was given as an object, which takes its tokenizer ({what}): model=(model, tokenizer)"
            )
        if not isinstance(model, str):
            raise UsageError(
                f"model is {type(model).__name__}: give a folder, a hub id, or a transformers model with its tokenizer, "
                "model=(model, tokenizer)"
            )
        if tokenizer is not None:
            raise UsageError(f"tokenizer goes with a model object; the model '{model}' brings its own")
        return None

    @property
    def name(self) -> str:
        """What stands for it in the configuration of a run."""
        return f"<{type(self.model).__name__} given from Python>"

    def policy(self, *, device: torch.device | None, dtype: torch.dtype | None, **form: Any) -> CausalLM:
        """The policy, on a device and in a type, or (None) as the model is. It is the object itself that is trained.

        Args:
            form: how texts become tokens, as for `CausalLM`.

        Raises:
            UsageError: the model's type is none that can be trained, or nothing of it is to be trained.
        """
        came_as = next(self.model.parameters()).dtype
        model = self.model if dtype is None else self.model.to(dtype)
        model = model if device is None else model.to(device)
        kinds = {p.dtype for p in model.parameters() if p.requires_grad}
        if not kinds:
            raise UsageError("no parameter of the model requires a gradient: nothing of it would be trained")
        if not kinds <= {torch.float32, torch.bfloat16}:
            found = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
            raise UsageError(
                f"the model is of {found}: float32 and bfloat16 can be trained, as dtype='bfloat16' makes it"
            )
        policy = CausalLM(model, self.tokenizer, name="the model given", **form)
        policy.came_as = came_as
        check_finite(policy.model, policy.name)
        policy.renderer.check_tokens()
        return policy
