from types import SimpleNamespace

import torch

from cohort import registry
from cohort.recipes.capo_curvature import shifts
from cohort.types import StepInfo
from tests.golden.runner import make_batch, tensor

KEY = "credit/curvature_gate"
STATE = ("adam_m", "adam_v", "adam_t")
FIELDS = dict.fromkeys(("hidden", "weight", *STATE))
# The run says the learning rate.
IGNORE = ("lr",)
# The whole vocabulary.
HYPER = {"top_k": None}


def access_of(inputs):
    """A policy with the case's hidden states and output layer; the context of a rollout is its row."""
    hidden, weight = tensor(inputs["hidden"]), tensor(inputs["weight"])
    rollouts = [SimpleNamespace(context=(i,), tokens=row) for i, row in enumerate(inputs["actions"])]

    def log_probs(contexts, completions, *, want):
        return {"hidden": hidden[torch.tensor([context[0] for context in contexts])]}

    return SimpleNamespace(rollouts=rollouts, log_probs=log_probs, head=lambda: weight, temperature=1.0)


def batch(case):
    inputs = case["inputs"]
    made, leaves = make_batch({k: v for k, v in inputs.items() if k not in FIELDS})
    return registry.method("capo-curvature", top_k=None).bind().on_scored(made, access_of(inputs)), leaves


def info(case):
    return StepInfo(lr=case["config"]["lr"])


def states(run):
    made, inputs = run.method.init(size=run.batch.size), run.inputs
    if "adam_m" in inputs:
        moments = {"m": tensor(inputs["adam_m"]), "v": tensor(inputs["adam_v"])}
        made[KEY] = {**moments, "ids": torch.arange(len(moments["m"])), "t": inputs["adam_t"]}
    return {**made, KEY: {**made[KEY], "t": inputs.get("adam_t", 0)}}


def _shifts(run):
    ready = run.trained.replace(loss_mask=run.trained.mask)
    return shifts(ready, run.states[KEY], adam=run.method.credit[0].hyper["adam"], lr=run.config["lr"])


def _after(name):
    return lambda run: run.method.bind(run.states).on_step_end(run.trained, [], None)[KEY][name]


OUTPUTS = {
    "m_hessian": lambda run: _shifts(run)[0],
    "m_fisher": lambda run: _shifts(run)[1],
    "accepted": lambda run: run.trained.loss_mask.double(),
    "adam_m": _after("m"),
    "adam_v": _after("v"),
    "adam_t": _after("t"),
}


def random_fields(batch, generator):
    """A last layer of three dimensions, with three of its five tokens as candidates."""
    shape = batch.mask.shape
    hidden = torch.randn(*shape, 3, generator=generator, dtype=batch.dtype)
    probs = torch.randn(*shape, 3, generator=generator, dtype=batch.dtype).softmax(-1)
    ids = torch.rand(*shape, 5, generator=generator).argsort(-1)[..., :3]
    return batch.with_tokens(gate_hidden=hidden, gate_ids=ids, gate_probs=probs)


# The thresholds belong to learning rates about 1e-5; here it is several hundred times that.
HYPER_TRAIN = "(tau_fisher=0.5, tau_hessian=0.9)"
# Advantages of a thousand, as with a median deviation of 0, are far beyond the thresholds: every token is rejected.
QUIET = True
