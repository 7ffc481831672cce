import torch

from cohort import registry
from tests.golden.runner import make_batch


def KIND_advantage(case):
    """Every setting of the case, through the method's own advantage."""
    config = dict(case["config"])
    inputs = dict(case["inputs"])
    if "correct" in inputs:
        inputs["rewards"] = inputs.pop("correct")
        settings = [{"k": k} for k in ([config["k"]] if isinstance(config["k"], int) else config["k"])]
    else:
        more = {"form": "best-minus-second", "std_ddof": config["std_ddof"]}
        settings = [{"scale_by_std": scale, **more} for scale in config["scale_by_std"]]
    batch, _ = make_batch(inputs)
    found = []
    for setting in settings:
        method = registry.method("pass-at-k", adv_eps=config["adv_eps"], **setting)
        found.append(method.bind().assign(batch)["outcome_advantage"])
    return {"advantages": torch.stack(found) if isinstance(case["expected"]["advantages"][0], list) else found[0]}


# Where fewer than k rollouts of every group are wrong, every set of k succeeds.
QUIET = True
HYPER_TRAIN = "(k=2)"
