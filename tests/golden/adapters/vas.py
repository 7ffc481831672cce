import torch

from cohort.recipes.vas import mixed, promotion_score, refreshed
from cohort.signals.diversity import distinct, mean_edit_distance, self_bleu
from tests.golden.runner import tensor


def _scores(config, inputs):
    tokens, right = inputs["tokens"], inputs["accuracy"]
    weights = {name: config[name] for name in ("weight_outcome", "weight_diversity")}
    rates = [sum(each) / len(each) for each in right]
    bleu = [self_bleu(each) for each in tokens]
    return {
        "pass_rate": rates,
        "ovs": [p * (1 - p) for p in rates],
        "distinct_3": [distinct(each, n=config["ngram"]) for each in tokens],
        "self_bleu_123": bleu,
        "mean_edit_distance": [mean_edit_distance(each) for each in tokens],
        "vps": [promotion_score(own, 1 - b, **weights) for own, b in zip(right, bleu, strict=True)],
    }


def _weights(config, inputs):
    raw = tensor(inputs["raw"])
    first = refreshed(None, raw[0], momentum=inputs["momentum"][0], eps=config["eps"])
    return {
        "first": first,
        "replaced": refreshed(first, raw[1], momentum=inputs["momentum"][1], eps=config["eps"]),
        "blended_with_first": refreshed(first, raw[2], momentum=inputs["momentum"][2], eps=config["eps"]),
        "flat": refreshed(None, tensor(inputs["flat_raw"]), momentum=0.0, eps=config["eps"]),
    }


def KIND_curriculum(case):
    config, inputs = case["config"], case["inputs"]
    if "tokens" in inputs:
        return _scores(config, inputs)
    if "raw" in inputs:
        return _weights(config, inputs)
    order, batches, positions = torch.tensor(inputs["permutation"]), [], []
    for call in inputs["calls"]:
        weighted, position, made = torch.tensor(inputs["weighted_indices"]), call["start"], []
        by_score = int(call["ratio"] * config["batch"])
        for _ in range(call["batches"]):
            rows, position = mixed(weighted[:by_score], order, position, config["batch"] - by_score)
            weighted = weighted[by_score:]
            made.append(rows)
        batches.append(made)
        positions.append(position)
    return {"batches": batches, "position": positions}


# Few prompts: they are all tried at once.
HYPER_TRAIN = "(scoring_rollouts=4)"
