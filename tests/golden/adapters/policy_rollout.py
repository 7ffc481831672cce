from cohort import registry
from cohort.rewards.grader import weighted_sum
from tests.golden.runner import make_batch, tensor

# What was drawn, not how it is trained: all rollouts of a prompt are one group behind the plain prompt.
IGNORE = ("group_plain", "group_aware")
FIELDS = {"policy_aware": None}


def KIND_reward(case):
    """A reward of two weighted components, as the grader sums them."""
    weights = case["config"]["tool_weight"], case["config"]["argument_weight"]
    parts = zip(case["inputs"]["tool_accuracy"], case["inputs"]["argument_score"], strict=True)
    return {"rewards": [weighted_sum(weights, each) for each in parts]}


def KIND_objective(case):
    inputs = case["inputs"]
    batch, leaves = make_batch({"mask": inputs["mask"], "logp": inputs["logp"]})
    batch = batch.with_tokens(visual=tensor(inputs["visual"]))
    bound = registry.method("policy-rollout", stage="pretraining").bind()
    loss = bound.loss(bound.prepare(batch).batch).total
    loss.backward()
    return {"loss": loss, "grad_logp": leaves["logp"].grad}


# As many rollouts see the document as do not.
TRAIN = {"group_size": 8}
