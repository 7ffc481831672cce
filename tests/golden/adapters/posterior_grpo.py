import torch

from cohort import registry
from cohort.reductions.scores import pair_loss
from cohort.types import Batch
from tests.golden.runner import make_batch, tensor
from tests.helpers import info_of, with_rewards
from tests.recipes import judges

SIGNALS = NAMED = ("format", "thinking")


def _signalled(batch, inputs):
    bare = batch.replace(
        accuracy=tensor(inputs["outcome"]).double(), reward_components=torch.zeros(batch.size, 0, dtype=torch.float64)
    )
    return with_rewards(bare, *(tensor(inputs[name]).double() for name in SIGNALS))


def batch(case):
    made, leaves = make_batch({k: v for k, v in case["inputs"].items() if k not in (*SIGNALS, "outcome")})
    return _signalled(made, case["inputs"]), leaves


def KIND_reward(case):
    count = len(case["inputs"]["outcome"])
    made = Batch.of(torch.ones(count, 1), group=torch.zeros(count).long(), rewards=torch.zeros(count).double())
    method = registry.method("posterior-grpo", **case["config"])
    made = _signalled(made, case["inputs"])
    return {"rewards": method.bind(info=info_of(made, *SIGNALS)).shape(made).rewards}


def KIND_reward_model(case):
    better, worse = (tensor(case["inputs"][name]).requires_grad_() for name in ("score_better", "score_worse"))
    loss = pair_loss(better, worse)
    grads = torch.autograd.grad(loss, (better, worse))
    return {"loss": loss, "grad_better": grads[0], "grad_worse": grads[1]}


def random_fields(batch, generator):
    """A reward of its own for the format, and a score in [0, 1]."""
    form = torch.randint(0, 2, (batch.size,), generator=generator).double()
    return with_rewards(batch, form, torch.rand(batch.size, generator=generator).double())


TRAIN = {"thought": True, "reward": ["number", f"0*{judges.__file__}:formatted", f"0*{judges.__file__}:thinking"]}
HYPER_TRAIN = "(format='formatted')"
