from cohort import registry
from cohort.recipes.igrpo import split
from tests.golden.guided import FakeSampler, guided, requests_of, text_of
from tests.golden.runner import make_batch

IGNORE = ("drafts",)
ELSEWHERE = "it is trained behind prompts with a draft, where tests/recipes/test_igrpo.py measures it"


def shown(draft_rewards):
    """Which draft the second stage is shown, and its reward, for each prompt."""
    prompts, count = len(draft_rewards), len(draft_rewards[0])
    sampler = FakeSampler(
        lambda r: draft_rewards[int(r.prompt.id)][r.meta["place"]] if r.meta["place"] < count else 0.0,
        says=lambda r: f"[draft {r.meta['place']}]",
    )
    groups = guided(registry.method("igrpo", drafts=count), requests_of(prompts, count + 1), sampler)
    found = []
    for p in range(prompts):
        (refinement,) = groups[p]
        found.append(next(k for k in range(count) if f"[draft {k}]" in text_of(refinement.request)))
    return found


def KIND_guidance(case):
    rewards, count = case["inputs"]["draft_rewards"], case["config"]["drafts"]
    best = shown(rewards)
    return {
        "best": best,
        "best_reward": [row[k] for row, k in zip(rewards, best, strict=True)],
        "expected_best_reward": [expected_best(v, count) for v in case["inputs"]["success_rate"]],
    }


def expected_best(rate, count):
    """Mean reward of the draft that is shown, over all outcomes of drafts that are right with probability `rate`."""
    outcomes = [[float(k >> i & 1) for i in range(count)] for k in range(2**count)]
    chances = [rate ** sum(row) * (1 - rate) ** (count - sum(row)) for row in outcomes]
    picked = [row[k] for row, k in zip(outcomes, shown(outcomes), strict=True)]
    return sum(chance * reward for chance, reward in zip(chances, picked, strict=True))


def KIND_budget(case):
    found = [split(total) for total in case["inputs"]["grpo_group"]]
    return {"drafts": [a for a, _ in found], "refinements": [b for _, b in found]}


def batch(case):
    return make_batch({k: v for k, v in case["inputs"].items() if k != "draft_rewards"})


OUTPUTS = {"best_draft": lambda run: shown(run.inputs["draft_rewards"])}
