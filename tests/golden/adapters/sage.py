import json

import torch

from cohort import registry
from cohort.rollouts import batching
from cohort.types import Prompt, Request
from tests.golden.runner import make_batch
from tests.helpers import rollout_of


class FakeTools:
    """A policy that earns the given rewards at each hint level and can write the given hints."""

    def __init__(self, rewards_by_level, hint_available):
        self.rewards, self.available = rewards_by_level, hint_available
        self.drawn = [0] * len(hint_available)
        self.rng = torch.Generator()

    def render(self, source):
        return (0,)

    def ask(self, sources):
        out = []
        for source in sources:
            prompt = int(source.split("<", 1)[1].split(">", 1)[0])
            out.append(json.dumps({f"level_{k}": "think" for k in (1, 2, 3) if self.available[prompt][k - 1]}))
        return out

    def draw(self, requests):
        out = []
        for request in requests:
            prompt, place = int(request.prompt.id), request.meta["place"]
            level = request.meta.get("hint_level", 0)
            self.drawn[prompt] += 1
            out.append(rollout_of(request, [1], reward=self.rewards[level][prompt][place]))
        return out


def search(rewards_by_level, hint_available, method):
    """Final level, rewards and number of rollouts of every prompt."""
    tools = FakeTools(rewards_by_level, hint_available)
    size = len(rewards_by_level[0][0])
    requests = [
        Request(
            Prompt(str(p), "", (), f"<{p}>", {"solution": "s"}),
            (0,),
            seed=100 * p + i,
            max_new_tokens=1,
            meta={"place": i},
        )
        for p in range(len(hint_available))
        for i in range(size)
    ]
    rollouts = method.bind().guidance(requests, tools)
    rewards, level = [[0.0] * size for _ in hint_available], [0] * len(hint_available)
    for rollout in rollouts:
        prompt = int(rollout.prompt.id)
        rewards[prompt][rollout.request.meta["place"]] = rollout.reward
        level[prompt] = rollout.request.meta.get("hint_level", 0)
    return {"final_level": level, "rewards": rewards, "rollouts": tools.drawn}


def light(accuracies, tau_min, tau_max, generation_ok=None):
    """Levels used at successive visits of one prompt, through the method's guidance and state."""
    method = registry.method("sage", variant="light", tau_min=tau_min, tau_max=tau_max)
    states, levels, size = method.init(size=1), [], 100
    for visit, accuracy in enumerate(accuracies):
        ok = generation_ok is None or generation_ok[visit]
        rewards = [[[1.0] * round(accuracy * size) + [0.0] * (size - round(accuracy * size))]] * 4
        tools = FakeTools(rewards, [[ok] * 3])
        requests = [
            Request(Prompt("0", "", (), "<0>", {"solution": "s"}), (0,), seed=i, max_new_tokens=1, meta={"place": i})
            for i in range(size)
        ]
        rollouts = method.bind(states).guidance(requests, tools)
        levels.append(rollouts[0].request.meta.get("hint_level", 0))
        states = method.bind(states).on_rollouts(batching.make_batch(rollouts, {}), rollouts)
    return levels


def KIND_guidance(case):
    config, inputs = case["config"], case["inputs"]
    if "rewards_by_level" in inputs:
        return search(inputs["rewards_by_level"], inputs["hint_available"], registry.method("sage"))
    lows, high = config["accuracy_min_threshold"], config["accuracy_max_threshold"]
    if isinstance(lows, list):
        return {"levels": [light(inputs["accuracies"], low, high) for low in lows]}
    return {"levels": light(inputs["accuracies"], lows, high, inputs.get("generation_ok"))}


def _searched(inputs):
    return search(inputs["rewards_by_level"], inputs["hint_available"], registry.method("sage"))


def batch(case):
    """Rewards of a loss case come from the search, where they are not given."""
    inputs = dict(case["inputs"])
    if "rewards_by_level" in inputs:
        found = _searched(inputs)["rewards"]
        place: dict[int, int] = {}
        rewards = []
        for group in inputs["group"]:
            rewards.append(found[group][place.get(group, 0)])
            place[group] = place.get(group, 0) + 1
        inputs = {k: v for k, v in inputs.items() if k not in ("rewards_by_level", "hint_available")}
        inputs["rewards"] = rewards
    return make_batch(inputs)


OUTPUTS = {
    "final_level": lambda run: _searched(run.inputs)["final_level"],
    "rewards": lambda run: (
        _searched(run.inputs)["rewards"] if isinstance(run.case["expected"]["rewards"][0], list) else run.shaped.rewards
    ),
}
