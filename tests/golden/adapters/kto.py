import torch

from cohort.axes.objective import sequence_log_ratio
from cohort.recipes.kto import class_weights, episode_labels, reference_point, rounds
from cohort.reductions.groups import token_sum
from cohort.reductions.kl import k1
from tests.golden.runner import make_batch, tensor


def batch(case):
    """The label is the reward; the log-ratios of the mismatched completions as the hook attaches them."""
    inputs = dict(case["inputs"])
    mask, policy, reference = (tensor(inputs.pop(f"kl_{name}")) for name in ("mask", "logp", "ref_logp"))
    inputs["rewards"] = [float(label) for label in inputs.pop("desirable")]
    made, leaves = make_batch(inputs)
    leaves["kl_logp"] = policy.requires_grad_()
    return made.with_rollouts(mismatched_log_ratio=token_sum(k1(policy, reference), mask.bool())), leaves


OUTPUTS = {
    "log_ratio": lambda run: sequence_log_ratio(run.trained),
    "z0": lambda run: reference_point(run.trained["mismatched_log_ratio"]),
}


def KIND_filter(case):
    config, inputs = case["config"], case["inputs"]
    if "n_desirable" in inputs:
        counts = zip(inputs["n_desirable"], inputs["n_undesirable"], strict=True)
        return {"weights": [class_weights(*pair, target=config["target"]) for pair in counts]}
    labels = episode_labels(
        torch.tensor(inputs["reached"]), torch.tensor(inputs["exposure"]), limit=config["exposure_limit"]
    )
    out = {}
    for name, good in zip(("blue", "red"), labels, strict=True):
        out[f"{name}_desirable"] = good
        out[f"{name}_weights"] = class_weights(int(good.sum()), int((~good).sum()), target=config["target"])
    return out


def KIND_state(case):
    return {"rows": rounds(case["config"]["iterations"], reference=case["config"]["reference"])}


def random_fields(batch, generator):
    return batch.with_rollouts(mismatched_log_ratio=torch.randn(batch.size, generator=generator, dtype=torch.float64))
