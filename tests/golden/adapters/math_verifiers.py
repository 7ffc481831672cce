from dataclasses import asdict

from cohort.rewards.verifiers import strict_math
from cohort.signals.answers import last_box
from cohort.signals.equality import equivalent
from cohort.signals.verification import asks_model, by_rules, never_right, oracle_gap, rates, verdict


def _rates(truth, verdicts):
    return asdict(rates(truth, verdicts))


def KIND_verifier(case):
    inputs = case["inputs"]
    if "texts" in inputs:
        return {"verdict": [verdict(text) for text in inputs["texts"]]}
    if "rule" in inputs:
        rows = zip(inputs["rule"], inputs["extracted"], inputs["gold"], strict=True)
        return {"ask_model": [asks_model(bool(rule), said, gold) for rule, said, gold in rows]}
    return {"equivalent": [equivalent(*pair) for pair in zip(inputs["gold"], inputs["answer"], strict=True)]}


def KIND_verifier_attack(case):
    """The builtin reward; and a model that says yes to everything makes nothing right that is not a number for a number."""
    inputs, stops = case["inputs"], case["config"].get("stop_strings", ())
    correct = strict_math(completions=inputs["response"], answer=inputs["gold"])
    for response, gold, right in zip(inputs["response"], inputs["gold"], correct, strict=True):
        answer = last_box(response, stops) if stops else last_box(response)
        assert by_rules(answer, gold) == bool(right)
        asked = asks_model(bool(right), answer or "", gold) and not never_right(answer or "", gold)
        assert not asked, f"a model would be asked about {answer!r}"
    return {"correct": correct}


def KIND_diagnostic(case):
    inputs = case["inputs"]
    if "training_reward" in inputs:
        gap, first = oracle_gap(inputs["training_reward"], inputs["oracle_reward"], case["config"]["max_gap"])
        return {"gap": gap, "first_alarm": first}
    truth, rule = inputs["truth"], inputs["rule"]
    out = {"rule_rates": _rates(truth, rule), "model_calls": rule.count(0)}
    if "model" in inputs:
        either = [int(r or m) for r, m in zip(rule, inputs["model"], strict=True)]
        out |= {"model_rates": _rates(truth, inputs["model"]), "hybrid": either, "hybrid_rates": _rates(truth, either)}
    return out
