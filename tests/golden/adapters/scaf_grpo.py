from cohort import registry
from cohort.recipes.scaf_grpo import ladder
from tests.golden.guided import FakeSampler, guided, requests_of
from tests.golden.runner import make_batch

IGNORE = ("step",)
HINTS = {"knowledge": ["k1", "k2", "k3", "k4"], "planning": ["p1", "p2", "p3", "p4"], "steps": ["s1", "s2", "s3", "s4"]}


def scaffolded(rewards, hint_rewards, *, step, tiers=3, **hyper):
    """The final groups, whose rollouts are worth rewards[prompt][place], and hint_rewards[prompt][level - 1] with a hint.

    Args:
        step: counted from 1.
    """
    columns = {name: [parts] * len(rewards) for name, parts in HINTS.items()}

    def worth(request):
        prompt, level = int(request.prompt.id), request.meta.get("hint_level", 0)
        return hint_rewards[prompt][level - 1] if level else rewards[prompt][request.meta["place"]]

    sampler = FakeSampler(worth, step=step - 1)
    without = dict.fromkeys(list(HINTS)[tiers:])
    method = registry.method("scaf-grpo", **hyper, **without)
    groups = guided(method, requests_of(len(rewards), len(rewards[0]), **columns), sampler)
    return [groups[p] for p in range(len(rewards))]


def _level(groups):
    return [members[0].request.meta.get("hint_level", 0) for members in groups]


def KIND_guidance(case):
    config, inputs = case["config"], case["inputs"]
    if "parts" in inputs:
        return {"ladder": [[tier, shown] for tier, shown in ladder(inputs["parts"], per_tier=config["per_tier"])]}
    found = [scaffolded(inputs["rewards"], inputs["hint_rewards"], step=step, **config) for step in inputs["steps"]]
    return {
        "level": [_level(groups) for groups in found],
        "rewards": [[[r.reward for r in members] for members in groups] for groups in found],
    }


def _scaffolded(case):
    inputs, config = case["inputs"], case["config"]
    size = inputs["group"].count(0)
    rewards = [inputs["rewards"][i : i + size] for i in range(0, len(inputs["rewards"]), size)]
    hyper = {key: config[key] for key in ("warmup_steps", "replace_num")}
    # Four levels: one tier.
    return scaffolded(rewards, inputs["hint_rewards"], step=config["step"], tiers=1, **hyper), size


def batch(case):
    """The rollouts of the final groups: what belongs to a hinted one takes the row that it has taken."""
    groups, size = _scaffolded(case)
    inputs = {k: [*v] for k, v in case["inputs"].items() if not k.startswith("hint_")}
    for prompt, members in enumerate(groups):
        for place, rollout in enumerate(members):
            row = prompt * size + place
            inputs["rewards"][row] = rollout.reward
            if rollout.request.meta.get("hint_level"):
                for name in ("mask", "logp", "old_logp"):
                    inputs[name][row] = case["inputs"][f"hint_{name}"][prompt]
    return make_batch(inputs)


OUTPUTS = {"level": lambda run: _level(_scaffolded(run.case)[0])}
HYPER_TRAIN = "(warmup_steps=0)"
