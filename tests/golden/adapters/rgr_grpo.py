import torch

from cohort import registry
from cohort.signals.rubrics import Criterion, rubric_reward
from tests.golden.guided import FakeSampler, guided, requests_of, text_of
from tests.recipes import judges

# Nothing is clipped.
IGNORE = ("clip_low", "clip_high")


def hyper(case):
    names = {"token_sum_then_mean": "token-sum"}
    return {"aggregation": names.get(name := case["config"]["aggregation"], name)}


def KIND_reward(case):
    inputs = case["inputs"]
    triples = zip("abcd", inputs["weights"], map(bool, inputs["factual"]), strict=True)
    rubric = [Criterion(*each) for each in triples]
    process = [Criterion("x", weight, False) for weight in inputs["no_factual_weights"]]
    alone = torch.tensor([inputs["no_factual_satisfied"]]).bool()
    return {
        "rewards": rubric_reward(torch.tensor(inputs["satisfied"]).bool(), rubric),
        "no_factual_reward": rubric_reward(alone, process)[0],
    }


def rubric(weights, factual):
    """A column with the criteria <0>, <1>, ..."""
    pairs = zip(weights, factual, strict=True)
    return [{"criterion": f"<<{k}>>", "weight": w, "factual": bool(f)} for k, (w, f) in enumerate(pairs)]


def assessed(satisfied, weights, factual):
    """(rollouts, what was drawn last) of prompts whose drafts satisfy these criteria, by way of the method's guidance."""
    prompts, drafts = len(satisfied), len(satisfied[0])

    def worth(prompts, completions, criteria):
        places = [tuple(map(int, text.split())) for text in completions]
        return [satisfied[p][i] if i < drafts else [0] * len(weights) for p, i in places]

    sampler = FakeSampler(lambda r: 0.0, says=lambda r: f"{r.prompt.id} {r.meta['place']}")
    sampler.judge = lambda judge, prompts, **texts: judge(prompts, **texts)
    method = registry.method("rgr-grpo", judge=worth)
    asked = requests_of(prompts, drafts + 1, rubric=[rubric(weights, factual)] * prompts)
    groups = guided(method, asked, sampler)
    return [groups[p] for p in range(prompts)], sampler.drawn[-prompts:]


def KIND_guidance(case):
    inputs = case["inputs"]
    groups, last = assessed(inputs["satisfied"], inputs["weights"], inputs["factual"])
    rewards = [[rollout.reward for rollout in members[:-1]] for members in groups]
    shown = [text_of(request) for request in last]
    count = len(inputs["weights"])
    named = [[k for k in range(count) if f"<<{k}>>" in text] for text in shown]
    drafts = [
        # An attempt that lacks nothing is shown to nobody.
        next((k for k in range(len(row)) if f"{p} {k}\n" in text), row.index(max(row)))
        for p, (row, text) in enumerate(zip(rewards, shown, strict=True))
    ]
    return {"rewards": rewards, "best": drafts, "refine": [bool(each) for each in named], "failed": named}


def random_fields(batch, generator):
    """One rollout in three was refined."""
    return batch.with_rollouts(refined=(torch.arange(batch.size) % 3 == 0).to(batch.dtype))


HYPER_TRAIN = f"(judge='{judges.__file__}:satisfied')"
