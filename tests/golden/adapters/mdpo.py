import torch

from cohort import registry
from cohort.recipes.mdpo import divergence, scheduled
from cohort.types import Batch
from tests.golden.runner import make_batch


def chosen(logits, actions):
    """Log-probabilities [N, T] of the actions, as a scoring pass gives them."""
    return logits.log_softmax(-1).gather(-1, actions[..., None])[..., 0]


def with_logits(logits, old_logits, actions, batch):
    """The batch scored by both policies."""
    old = chosen(old_logits, actions)
    return batch.with_tokens(logits=logits, old_logits=old_logits, logp=chosen(logits, actions), old_logp=old)


def batch(case):
    """Where logits are given, log-probabilities follow from them, and so does the gradient."""
    made, leaves = make_batch(case["inputs"])
    if "logits" not in made:
        return made, leaves
    return with_logits(leaves["logits"], made._tokens["old_logits"], made._tokens["token_ids"], made), leaves


OUTPUTS = {"kl": lambda run: torch.where(run.batch.mask, divergence(run.batch, kl=run.config["kl"]), 0.0)}


def optimum(old, advantage, step_size):
    """Probabilities [V] where the method's own loss is smallest, each action drawn as often as the old policy draws it."""
    method = registry.method("mdpo", kl="full", step_size=step_size)
    actions, count = torch.arange(len(old))[:, None], len(old)
    base = Batch.of(torch.ones(count, 1), group=torch.zeros(count, dtype=torch.int64), rewards=advantage)
    base = base.replace(advantages=advantage[:, None], weight=old[:, None])
    logits = old.log()
    for _ in range(100):
        # Steps along the natural gradient, whatever the loss is, until its gradient vanishes.
        logits = logits.log_softmax(-1).requires_grad_()
        scored = with_logits(logits.expand(count, 1, -1), old.log().expand(count, 1, -1), actions, base)
        (grad,) = torch.autograd.grad(method.bind().loss(scored).total, logits)
        if bool(grad.abs().max() < 1e-14):
            break
        logits = (logits - step_size * grad / logits.exp()).detach()
    return logits.detach().exp()


def KIND_objective(case):
    inputs = {name: torch.tensor(value, dtype=torch.float64) for name, value in case["inputs"].items()}
    each = [optimum(inputs["old_probability"], inputs["advantage"], float(t)) for t in inputs["step_size"]]
    return {"probability": each}


def KIND_optimizer(case):
    total = case["config"]["total_iterations"]
    return {"step_size": [scheduled(k, total) for k in case["inputs"]["iteration"]]}


TRAIN = {"epochs": 2}
