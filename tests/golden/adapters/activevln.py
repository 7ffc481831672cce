from types import SimpleNamespace

import torch

from cohort import registry
from cohort.environments.navigation import Walk, step_budget
from cohort.recipes.activevln import goal_reward, schedule
from cohort.rollouts.episode import name_of
from cohort.types import Context, Prompt, Request, Rollout
from tests.golden.runner import make_batch, tensor
from tests.helpers import with_rewards

RENAME = {"success_reward_base": "base", "success_radius": "radius"}
IGNORE = ("aggregation",)
HYPER = {"stopped": "stopped", "distance": "distance"}
NAMED = ("stopped", "distance")


def batch(case):
    """An environment says of each episode whether the policy stopped, and how far from the goal."""
    inputs = dict(case["inputs"])
    parts = [tensor(inputs.pop(name)).double() for name in ("stopped", "distance_to_goal")]
    return make_batch({**inputs, "reward_components": [list(pair) for pair in zip(*map(list, parts), strict=True)]})


def KIND_reward(case):
    inputs, config = case["inputs"], case["config"]
    how = {"base": config["success_reward_base"], "radius": config["success_radius"]}
    return {"rewards": goal_reward(tensor(inputs["stopped"]), tensor(inputs["distance_to_goal"]), **how)}


def KIND_rollout(case):
    inputs, config = case["inputs"], case["config"]
    limits = {"tolerance": config["length_tolerance"], "most": config["max_step_budget"]}
    out = {"step_budget": [step_budget(n, **limits) for n in inputs["expert_steps"]]}
    walks = []
    for episode in inputs.get("episodes", ()):
        budget = step_budget(episode["expert_steps"], **limits)
        walk = Walk(budget, episode["turn_budget"], config["success_radius"])
        for actions in episode["turns"]:
            if not walk.reason:
                walk.take(actions, lambda move: None, lambda: episode["distance_at_stop"])  # noqa: B023
        walks.append((walk, episode["distance_at_stop"]))
    if walks:
        how = {"base": config["success_reward_base"], "radius": config["success_radius"]}
        stops = [float(walk.reason in ("success", "goal_not_reached")) for walk, _ in walks]
        out |= {name: [getattr(walk, name) for walk, _ in walks] for name in ("reason", "steps")}
        out["turns"] = [walk.turn for walk, _ in walks]
        out["rewards"] = goal_reward(tensor(stops), tensor([far for _, far in walks]), **how)
    return out


def KIND_curriculum(case):
    inputs, config = case["inputs"], case["config"]
    how = {"alpha": config["alpha"], "warmup": config["warmup_steps"], "tolerance": config["length_tolerance"]}
    how |= {"steps": config["max_step_budget"], "turns": config["max_turns"]}
    plans = [schedule(n, step, **how) for n, step in zip(inputs["expert_steps"], inputs["step"], strict=True)]
    out = {name: [plan[name] for plan in plans] for name in ("step_budget", "turn_budget")}
    out["n_replayed"] = [plan["replayed"] for plan in plans]
    out["n_drop"] = [n - plan["replayed"] for n, plan in zip(inputs["expert_steps"], plans, strict=True)]
    return out


def KIND_filter(case):
    """The method's guidance with a sampler that gives the successes of the case."""
    inputs, asked = case["inputs"], []
    later = [{each["group"]: each["success"] for each in inputs[f"attempt_{k}"]} for k in (1, 2)]
    found = [dict(enumerate(inputs["success"])), *later]

    def draw(requests):
        results, groups = found[len(asked)], {}
        asked.append(list(dict.fromkeys(int(r.prompt.id) for r in requests)))
        out = []
        for request in requests:
            k = groups[request.prompt.id] = groups.get(request.prompt.id, -1) + 1
            out.append(Rollout(request, (), id=name_of(request), accuracy=results[int(request.prompt.id)][k]))
        return out

    requests = [
        Request(Prompt(str(g), "", (), ""), Context(()), 10 * g + k, 4)
        for g, row in enumerate(inputs["success"])
        for k in range(len(row))
    ]
    method = registry.method("activevln", attempts=case["config"]["max_sample_attempts"]).bind()
    rollouts = method.guidance(requests, SimpleNamespace(draw=draw, step=0))
    final = [[r.accuracy for r in rollouts if r.prompt.id == str(g)] for g in range(len(inputs["success"]))]
    return {
        "need_attempt_1": asked[1],
        "need_attempt_2": asked[2],
        "final_success": final,
        "extra_attempts": [sum(g in groups for groups in asked[1:]) for g in range(len(final))],
    }


def random_fields(batch, generator):
    """Whether the policy stopped, and how far from the goal."""
    stopped, distance = torch.rand((2, batch.size), generator=generator, dtype=batch.dtype)
    return with_rewards(batch, (stopped < 0.5).to(batch.dtype), 5 * distance)
