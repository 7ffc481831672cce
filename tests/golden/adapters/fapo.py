import torch

from cohort import registry
from cohort.rewards.information import first_error
from cohort.signals.first_errors import is_flawed
from cohort.types import Batch
from tests.golden.runner import make_batch
from tests.helpers import info_of, with_rewards
from tests.recipes import judges

NAMED = ("flawed",)
RENAME = {"lambda": "flaw_penalty"}


def flagged(batch, flawed):
    """The batch with what the run's reward `flawed` says, in place of other rewards."""
    bare = batch.replace(reward_components=torch.zeros(batch.size, 0, dtype=torch.float64))
    return with_rewards(bare, torch.as_tensor(flawed, dtype=torch.float64))


def batch(case):
    made, leaves = make_batch({k: v for k, v in case["inputs"].items() if k != "flawed"})
    return flagged(made, case["inputs"]["flawed"]), leaves


def _prompts(correct, flawed, groups):
    correct = torch.as_tensor(correct, dtype=torch.float64)
    made = Batch.of(torch.ones(len(correct), 1), group=torch.tensor(groups), rewards=correct, accuracy=correct)
    return flagged(made, flawed)


def KIND_advantage(case):
    inputs, out = case["inputs"], []
    counts = zip(*(inputs[key] for key in ("lambda", "n_correct", "n_wrong", "n_flawed")), strict=True)
    for penalty, sound, wrong, flawed in counts:
        correct = [1.0] * sound + [0.0] * wrong + [1.0] * flawed
        made = _prompts(correct, [0.0] * (sound + wrong) + [1.0] * flawed, [0] * len(correct))
        host = registry.recipe("grpo")(adv_eps=case["config"]["adv_eps"])
        method = registry.method("fapo", flaw_penalty=penalty).over(host)
        out.append(float(method.bind(info=info_of(made, *NAMED)).prepare(made).batch.advantages[-1, 0]))
    return {"flawed_advantage": out}


def KIND_reward(case):
    inputs = case["inputs"]
    if "gold_step" in inputs:
        said = ["\\boxed{?}" if step is None else f"so \\boxed{{{step}}}" for step in inputs["predicted_step"]]
        return {"rewards": first_error(said, inputs["gold_step"], [["step"] * n for n in inputs["total_steps"]])}
    # The detector is asked for right rollouts only.
    flawed = [float(c and is_flawed(a)) for c, a in zip(inputs["correct"], inputs["detector_answer"], strict=True)]
    made = _prompts(inputs["correct"], flawed, [0] * len(flawed))
    method = registry.method("fapo", flaw_penalty=case["config"]["lambda"])
    return {"flawed": flawed, "rewards": method.bind(info=info_of(made, *NAMED)).shape(made).rewards}


def random_fields(batch, generator):
    return with_rewards(batch, torch.randint(0, 2, (batch.size,), generator=generator).double())


TRAIN = {"thought": True, "reward": ["number", f"0*{judges.__file__}:flawed"]}
