import torch

from cohort import registry
from cohort.recipes.intervened_po import parts
from cohort.signals.turning import first_safe, sentence_of, turning_points
from tests.golden.preferences import paired
from tests.golden.runner import tensor


def KIND_loss(case):
    inputs, config = case["inputs"], case["config"]
    made, leaves = paired(inputs)
    count = made.size // 2
    at = tensor(inputs["divergence_index"]).double().repeat(2)
    made = made.with_rollouts(divergence=at, pair=1.0 + torch.arange(count).repeat(2).double())
    found = parts(made, beta=config["beta"])
    loss = registry.method("intervened-po", **config).objective(made)
    grads = torch.autograd.grad(loss, list(leaves.values()))
    return {**found, "loss": loss, **{f"grad_{name}": grad for name, grad in zip(leaves, grads, strict=True)}}


def KIND_credit(case):
    both = [turning_points(each, **case["config"]) for each in case["inputs"]["csr"]]
    return {"trigger_index": [trigger for trigger, _ in both], "cue_index": [cue for _, cue in both]}


def KIND_guidance(case):
    inputs, most = case["inputs"], case["config"]["max_rounds"]
    rows = []
    for cue, safe in zip(inputs["cue_tokens"], inputs["safe_after"], strict=True):
        number, rounds = sentence_of(inputs["sentence_starts"], cue), first_safe(safe, most)
        at = inputs["sentence_starts"][number]
        rows.append({"cue_sentence": number, "divergence_index": at, "rounds": rounds, "keep_pair": rounds > 0})
    return {"rows": rows}


def random_fields(batch, generator):
    """Pairs of two rows each, that differ from some token on."""
    pair = 1.0 + torch.div(torch.arange(batch.size), 2, rounding_mode="floor").double()
    at = torch.randint(0, 3, (batch.size,), generator=generator).double()
    return batch.with_rollouts(pair=pair, divergence=at, trigger=torch.full((batch.size,), -1.0).double())


# A wrong digit is replaced by a thought, behind which the policy says another one.
TRAIN = {"thought": True}
HYPER_TRAIN = "(cue='[0-9]', triggers=('~',))"
ELSEWHERE = "it learns from interventions, which tests/recipes/test_intervened_po.py has"
