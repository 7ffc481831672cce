"""The model that a method learns from, beside the policy: checked, loaded, and put into its role."""

from __future__ import annotations

from collections.abc import Callable

from cohort.errors import UsageError
from cohort.methods import Method
from cohort.policies.causal_lm import CausalLM
from cohort.policies.loading import load_model
from cohort.training import toy
from cohort.training.config import TrainConfig


def learns_from_another(method: Method) -> bool:
    """True if the method reads what another model makes of its rollouts."""
    needs = method.needs(loss=True) | method.needs(loss=False)
    return bool(needs & {"teacher_logp", "teacher_logits"} and "teacher_context" not in method.provides)


def check_teacher(method: Method, config: TrainConfig) -> None:
    """A teacher is named where the method needs one, and nowhere else.

    Raises:
        UsageError: it is not.
    """
    asked, named = learns_from_another(method), config.policy.teacher
    if asked and named is None:
        raise UsageError(f"'{method.name}' learns from another model: name it with --teacher (a folder or a hub id)")
    if named is not None and not asked:
        raise UsageError(f"--teacher {named} was given, but '{method.name}' learns from no other model: leave it out")


def give_teacher(policy: CausalLM, method: Method, config: TrainConfig, log: Callable[[str], None]) -> None:
    """Have the configuration's teacher play its role beside the policy, in the policy's type and on its device.

    Raises:
        UsageError: it cannot be loaded, or reads other tokens than the policy.
    """
    name = config.policy.teacher
    if name is None:
        return
    folder = str(toy.folder(log)) if name == "toy" else name
    model, tokenizer = load_model(folder, dtype=policy.dtype, trust_remote_code=config.policy.trust_remote_code)
    own, other = policy.renderer.tokenizer.get_vocab(), tokenizer.get_vocab()
    if own != other:
        apart = min((token for token in own.keys() | other.keys() if own.get(token) != other.get(token)), key=repr)
        raise UsageError(
            f"teacher '{name}' reads other tokens than the policy {policy.name or 'that was given'}: {apart!r} is "
            f"{other.get(apart, 'none')} there and {own.get(apart, 'none')} here; a teacher has the policy's tokenizer"
        )
    rows = int(model.get_output_embeddings().weight.shape[0])
    if rows < policy.vocabulary and "logits" in method.needs(loss=True):
        raise UsageError(
            f"teacher '{name}' has {rows} logits and the policy {policy.vocabulary}: distributions cannot be compared; "
            "take a mode of the method that reads the sampled tokens alone"
        )
    policy.roles.make("teacher", model=model.to(policy.device))
