"""MDPO: Mirror Descent Policy Optimization. arXiv:2005.09814.

Code manantomar/Mirror-Descent-Policy-Optimization. Confidence: exact for the on-policy objective; inferred: everything
that concerns language models (group advantages, aggregation, the sampled KL).

    l_it = -rho_it A_i + (1/t_k) KL_it,   rho = exp(logp - old_logp)                 no clip
    KL   = rho log rho - rho + 1                                                     kl="sampled"
    KL   = sum_v pi(v) (log pi(v) - log pi_old(v))                                   kl="full"
    t_k  = 1 - k/K at step k of K, so that the pull to the old policy grows from 1 to K; or a constant `step_size`

The optimum of a step is pi_old exp(t_k A) / Z, towards which several updates are made on the same rollouts. The KL has
no gradient at the first of them, so it takes two or more (`epochs`, `updates`; the paper makes 10) to matter. A group of
equal rewards is not free of gradient after the first: it pulls back. The method's KL is to the policy before the step, not
to a reference.

kl="full" keeps the old policy's logits [N, T, V] for the step and takes a pass of its own for them: for small
vocabularies.

Defaults: the schedule is the paper's. Its code has t_k = 1 - (k - 1)/K.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor

from cohort.axes import surrogate
from cohort.methods import Method, use
from cohort.recipes.recipe import recipe
from cohort.types import Batch, StepInfo
from cohort.types.access import ModelAccess
from cohort.types.declare import declare, hooks, needs


def scheduled(iteration: int, total: int) -> float:
    """t_k = 1 - k/K for k = 0 .. K - 1."""
    return 1 - iteration / total


def old_policy(batch: Batch, access: ModelAccess, *, kl: str = "sampled") -> Batch:
    """on_scored hook: the batch with `old_logits` [N, T, V], where the KL is taken over the vocabulary."""
    if kl != "full":
        return batch
    contexts, completions = zip(*((r.context, r.tokens) for r in access.rollouts), strict=True)
    support = [r.support for r in access.rollouts]
    logits = access.log_probs(contexts, completions, want=frozenset({"logits"}), support=support)["logits"]
    return batch.with_tokens(old_logits=logits)


def divergence(batch: Batch, *, kl: str = "sampled") -> Tensor:
    """KL(pi || pi_old) at every token, estimated from the token drawn or exact over the vocabulary: [N, T]."""
    if kl == "sampled":
        difference = batch.logp - batch.old_logp
        return difference.exp() * (difference - 1) + 1
    new, old = batch["logits"].log_softmax(-1), batch["old_logits"].log_softmax(-1)
    return (new.exp() * (new - old)).sum(-1)


@needs("old_logp", logits=lambda kl: kl == "full", old_logits=lambda kl: kl == "full")
@hooks(on_scored=old_policy)
@declare(provides=("old_logits",))
def proximity(batch: Batch, *, kl: str = "sampled", step_size: float | None = None, info: StepInfo) -> Tensor:
    """(1/t_k) KL(pi || pi_old), t_k = 1 - k/K unless `step_size` is given: [N, T]. Source: arXiv:2005.09814."""
    size = step_size or scheduled(info.step, info.steps)
    return divergence(batch, kl=kl) / size


@recipe(
    title="Mirror Descent Policy Optimization",
    paper="arXiv:2005.09814",
    idea="no clip: several updates a batch, held near the policy before the step by a KL that grows over the run",
    confidence="exact",
)
def mdpo(
    *, step_size: Annotated[float | None, "(0, inf)"] = None, kl: Annotated[str, ("sampled", "full")] = "sampled"
) -> Method:
    return Method(surrogate=use(surrogate.unclipped), regularizer=(use(proximity, kl=kl, step_size=step_size),))
