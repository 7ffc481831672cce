from cohort.rewards.plots.kind import well_formed
from cohort.signals.charts import code_reward, composite, shape, text_reward, visual_reward
from tests.golden.runner import make_batch, tensor

IGNORE = ("blend", "weights")


def _composites(case):
    inputs, config = case["inputs"], case["config"]
    parts = zip(*(inputs[name] for name in ("shape", "executed", "intent", "readability", "correctness")), strict=True)
    return [composite(*part, blend=config["blend"], weights=config["weights"]) for part in parts]


OUTPUTS = {"composite": lambda run: _composites(run.case)}


def batch(case):
    """The run's rewards are the composite and the format."""
    made, leaves = make_batch(case["inputs"])
    return made.replace(rewards=tensor(_composites(case)) + tensor(case["inputs"]["format"])), leaves


def KIND_reward(case):
    inputs = case["inputs"]
    if "texts" in inputs:
        return {"rewards": well_formed(inputs["texts"])}
    if "gold" in inputs:
        rows = zip(inputs["gold"], inputs["answer"], inputs["judge"], strict=True)
        shapes = [shape(gold, answer, bool(match)) for gold, answer, match in rows]
        return {"shape": shapes, "text_reward": [text_reward(s, case["config"]["blend"]) for s in shapes]}
    executed, intent = inputs["executed"], inputs["intent"]
    rated = zip(executed, inputs["readability"], inputs["correctness"], strict=True)
    return {
        "code_reward": [code_reward(*pair) for pair in zip(executed, intent, strict=True)],
        "visual_reward": [visual_reward(*each) for each in rated],
    }
