import torch

from cohort.policies.head import statistics_of
from cohort.recipes.dcpo import controlled_temperature, reinforce_share, target_ratio

KEY = "credit/towards_temperature"
FIELDS = {"entropy_state": None}


def states(run):
    return {KEY: {"entropy": run.inputs["entropy_state"]}}


def _controller(entropy, correct, config):
    target = config["target_entropy"]
    return (
        controlled_temperature(entropy, target_entropy=target, hot=config["hot"], cold=config["cold"]),
        reinforce_share(entropy, correct, target_entropy=target, cap=config["cap"]),
    )


def _now(run):
    correct = float((run.batch.rewards > run.config["correct_threshold"]).double().mean())
    return _controller(run.states[KEY]["entropy"], correct, run.config)


OUTPUTS = {
    "temperature": lambda run: _now(run)[0],
    "alpha": lambda run: _now(run)[1],
    "next_entropy_state": lambda run: run.method.bind(run.states).on_step_end(run.trained, [], None)[KEY]["entropy"],
}


def KIND_ratio(case):
    logits = torch.tensor(case["inputs"]["logits"], dtype=torch.float64)
    tokens = torch.tensor(case["inputs"]["tokens"])

    def logp(temperature):
        return statistics_of(logits, tokens, temperature, False)[0]

    return {"rho": [target_ratio(logp(t), logp(1.0)) for t in case["config"]["temperatures"]]}


def KIND_regularizer(case):
    inputs = case["inputs"]
    pairs = zip(inputs["entropy_state"], inputs["correct_fraction"], strict=True)
    temperature, alpha = zip(*(_controller(h, f, case["config"]) for h, f in pairs), strict=True)
    return {"temperature": temperature, "alpha": alpha}


def random_fields(batch, generator):
    shift = 0.2 * torch.randn(batch.mask.shape, generator=generator, dtype=torch.float64)
    garbage = torch.where(batch.mask, 0.0, 1e6)
    return batch.with_tokens(old_logp_temp=batch.old_logp + shift + garbage)
