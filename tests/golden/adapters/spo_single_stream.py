import sys
from dataclasses import dataclass

import torch

from cohort import registry
from cohort.recipes.spo_single_stream import forgetting, initial, sampling_weights
from cohort.types import Batch, Prompt, Request
from tests.golden.runner import hyperparameters, make_batch, tensor
from tests.helpers import rollout_of

STATE = "curriculum/prioritised"
IGNORE = ("offline_n",)


@dataclass
class FakeProbe:
    """Log-probabilities by (prompt, step) of a rollout; its first token is the prompt and its context the step."""

    rollouts: list
    known: dict

    def log_probs(self, contexts, completions):
        rows = [self.known[(tokens[0], context[0])] for context, tokens in zip(contexts, completions, strict=True)]
        out = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.float64)
        for row, values in zip(out, rows, strict=True):
            row[: len(values)] = tensor(values)
        return {"logp": out}


def _hyper(case):
    return hyperparameters("spo-single-stream", case["config"], sys.modules[__name__])[0]


def _method(case):
    return registry.method("spo-single-stream", **_hyper(case))


def _tracking(method, alpha, beta):
    states = method.init(size=len(alpha))
    states[STATE]["counts"] = torch.stack([tensor(alpha).double(), tensor(beta).double()], 1)
    return states


def _scored(method, batch, states, rollouts=None):
    return method.bind(states).on_scored(batch, FakeProbe(rollouts or _rollouts(batch.size), {}))


def _rollouts(count):
    prompt = Prompt("", "", (0,), "")
    return [rollout_of(Request(prompt, (0,), 0, 1), [0]) for _ in range(count)]


def batch(case):
    """Rollouts of prompts whose success is tracked as given."""
    inputs = {k: v for k, v in case["inputs"].items() if k not in ("alpha", "beta")}
    made, leaves = make_batch(inputs)
    method = _method(case)
    states = _tracking(method, case["inputs"]["alpha"], case["inputs"]["beta"])
    return _scored(method, made.with_rollouts(row=torch.arange(made.size)), states), leaves


OUTPUTS = {
    "values": lambda run: run.batch["tracked_value"],
    "raw_advantages": lambda run: run.batch.rewards - run.batch["tracked_value"],
}


def KIND_advantage(case):
    inputs, out = case["inputs"], {}
    for name in [key.removeprefix("rewards_") for key in inputs if key.startswith("rewards_")]:
        method = _method(case)
        states = _tracking(method, inputs[f"alpha_{name}"], inputs[f"beta_{name}"])
        made, _ = make_batch({"rewards": inputs[f"rewards_{name}"]})
        made = method.bind(states).assign(_scored(method, made.with_rollouts(row=torch.arange(made.size)), states))
        out[f"advantages_{name}"] = made["outcome_advantage"]
    return out


def KIND_curriculum(case):
    counts = torch.stack([tensor(case["inputs"][name]) for name in ("alpha", "beta")], 1)
    weights = sampling_weights(counts, explore=case["config"]["explore"])
    return {"weights": weights, "probabilities": weights / weights.sum()}


def KIND_state(case):
    inputs = case["inputs"]
    if "D" in inputs:
        config = {k: case["config"][k] for k in ("rho_min", "rho_max", "d_half")}
        return {"rho": forgetting(tensor(inputs["D"]), **config)}
    return _sequence(case) if "offline_scores" in inputs else _duplicate(case)


def _step(method, states, rows, rewards, rollouts, known):
    """(baselines, states) of one step, through the method's hooks."""
    made = Batch.of(torch.ones(len(rows), 1), group=torch.tensor(rows), rewards=tensor(rewards).double())
    made = _scored(method, made.with_rollouts(row=torch.tensor(rows)), states, rollouts)
    after = method.bind(states).on_step_end(made, rollouts, FakeProbe(rollouts, known))
    return made["tracked_value"], after


def _duplicate(case):
    inputs, method = case["inputs"], _method(case)
    assert inputs["first_visit"]
    states = _tracking(method, [inputs["alpha"]], [inputs["beta"]])
    rows = [0] * len(inputs["rewards"])
    known = {(0, 0): [-1.0]}
    baseline, after = _step(method, states, rows, inputs["rewards"], _rollouts(len(rows)), known)
    alpha, beta = after[STATE]["counts"][0]
    return {"baseline_used": baseline, "alpha": float(alpha), "beta": float(beta)}


def _sequence(case):
    """Prompts with a column of offline scores; the tracker of one that never came is that of its scores."""
    inputs = case["inputs"]
    scores, names = inputs["offline_scores"], list(inputs["offline_scores"])
    method = registry.method("spo-single-stream", **_hyper(case), offline="offline")
    states, steps, known = method.init(size=len(names)), [], {}
    begun = {name: initial(scores[name], rho_min=case["config"]["rho_min"]) for name in names}
    for t, step in enumerate(inputs["steps"]):
        rows = [names.index(name) for name in step["prompts"]]
        for row in range(len(names)):
            known.update({(row, u): step["stored_rollout_current_logp"].get(names[row], [0.0]) for u in range(t)})
        rollouts = []
        for row, name in zip(rows, step["prompts"], strict=True):
            known[(row, t)] = step["new_rollout_logp"][name]
            prompt = Prompt(name, name, (t,), name, {"offline": scores[name]})
            rollouts.append(rollout_of(Request(prompt, (t,), 0, 1), [row] * len(known[(row, t)])))
        baseline, states = _step(method, states, rows, step["rewards"], rollouts, known)
        now = states[STATE]
        counts = {n: now["counts"][i] if str(i) in now["stored"] else begun[n] for i, n in enumerate(names)}
        drift = {name: now["drift"][row] for row, name in zip(rows, step["prompts"], strict=True)}
        limits = {k: case["config"][k] for k in ("rho_min", "rho_max", "d_half")}
        steps.append(
            {
                "D": drift,
                "rho": {name: forgetting(d, **limits) for name, d in drift.items()},
                "baseline_used": dict(zip(step["prompts"], baseline.tolist(), strict=True)),
                "alpha": {n: float(c[0]) for n, c in counts.items()},
                "beta": {n: float(c[1]) for n, c in counts.items()},
            }
        )
    return {
        "init_alpha": {n: float(c[0]) for n, c in begun.items()},
        "init_beta": {n: float(c[1]) for n, c in begun.items()},
        "steps": steps,
    }


def random_fields(batch, generator):
    value = torch.rand(batch.size, generator=generator, dtype=torch.float64)
    return batch.with_rollouts(tracked_value=value.to(batch.dtype))


# One rollout a prompt: as many prompts as other methods have rollouts.
TRAIN = {"prompts_per_step": 64, "lr": 4e-3}
