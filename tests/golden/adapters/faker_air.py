import torch

from cohort import registry
from cohort.axes.steering import constrained, moved, rank_and_average, steer_beta, steer_lambdas
from cohort.signals.controller import Gains
from cohort.signals.forecast import alarms, class_reward, gaussian_terms, horizon, step_weights, weighted_mean
from cohort.types import Batch, StepInfo
from tests.golden.runner import tensor

# It breaks ties by the order of rollouts, as the paper's rule may.
ORDERED = True
NAMES = ("recall", "far")


def _one_group(rewards, **parts):
    count = len(rewards)
    made = Batch.of(torch.ones(count, 1), group=torch.zeros(count).long(), rewards=rewards)
    return made.replace(reward_components=torch.stack(list(parts.values()), 1)) if parts else made


def KIND_reward(case):
    config, inputs = case["config"], case["inputs"]
    prediction, target, base = tensor(inputs["prediction"]), tensor(inputs["target"]), config["step_weight_base"]
    kept = {name: config[name] for name in ("var_weights", "coarse", "exact", "false_alarm_penalty")}
    edges = [config["edges"][name] for name in ("pm2p5", "pm10")]
    own = class_reward(prediction, target, edges=edges, base=base, **kept)
    recall, far = alarms(prediction, target, threshold=config["threshold_pm2p5"], base=base)
    state = {"lambda_rec": config["lambda_rec"], "lambda_far": config["lambda_far"]}
    method = registry.method(
        "faker-air", recall="recall", far="far", recall_floor=config["recall_floor"], far_target=config["far_target"]
    )
    info = StepInfo(reward_names=NAMES, reward_weights=(0.0, 0.0))
    bound = method.bind({f"shaping/{constrained.__name__}": state}, info)
    rewards = bound.shape(_one_group(own, recall=recall, far=far)).rewards
    out = {"class_reward": own, "recall": recall, "far": far, "rewards": rewards}
    return {**out, "step_weights": step_weights(len(target), base)}


def KIND_loss(case):
    config, inputs = case["config"], case["inputs"]
    mean = tensor(inputs["mu"]).requires_grad_()
    given = [tensor(inputs[name]) for name in ("ref_mu", "action", "target")]
    density, divergence = gaussian_terms(mean, *given, sigma=config["sigma"])
    steps = step_weights(density.shape[1], config["step_weight_base"])[:, None]
    logp = weighted_mean(density, torch.tensor(config["logprob_weights"]).double().expand(density.shape[1:]))
    kl = weighted_mean(divergence, steps * torch.tensor(config["kl_weights"]).double())
    method = registry.method(
        "faker-air",
        beta=config["kl_beta"],
        adv_ema_coeff=config["adv_ema_coeff"],
        reward_ema_alpha=config["reward_ema_alpha"],
    )
    batch = _one_group(tensor(inputs["rewards"])).replace(logp=logp[:, None], old_logp=logp[:, None].detach())
    bound = method.bind(method.init(size=1))
    ready = bound.prepare(batch.with_tokens(kl=kl[:, None])).batch
    loss = bound.loss(ready).total
    out = {"advantages": ready["outcome_advantage"], "logprob": logp, "kl": kl, "loss": loss}
    return {**out, "grad_mu": torch.autograd.grad(loss, mean)[0]}


def KIND_advantage(case):
    method = registry.method("faker-air", **case["config"])
    how = {"ema_alpha": case["config"]["reward_ema_alpha"], "epoch_steps": None}
    key, states, out = f"advantage/{rank_and_average.__name__}", method.init(size=1), []
    for step, rewards in enumerate(case["inputs"]["rewards"]):
        batch, info = _one_group(tensor(rewards)), StepInfo(step=step)
        found = method.bind(states, info).assign(batch)["outcome_advantage"]
        states = {**states, key: moved(batch, states[key], info, **how)}
        out.append({"advantages": found, "ema_mean": states[key]["mean"], "ema_var": states[key]["var"]})
    return {"after_step": out}


def KIND_curriculum(case):
    inputs = case["inputs"]
    rows = [
        [horizon(epoch, base=base, increment=inc, every=every, most=most) for epoch in inputs["epochs"]]
        for base, inc, every, most in inputs["settings"]
    ]
    return {"rollout_steps": rows, "step_weights": [step_weights(count, 0.75) for count in (1, 2, 5)]}


def KIND_state(case):
    config, inputs = case["config"], case["inputs"]
    gains = Gains(*(config[name] for name in ("kp", "ki", "decay", "ema_alpha")))
    bounds = {name: config[name] for name in ("target_kl", "beta_min", "beta_max")}
    state, out = {"beta": config["beta_init"], "I": 0.0, "kl": None}, {"beta": []}
    for kl in inputs["kl"]:
        state = steer_beta(state, kl, gains=gains, **bounds)
        out["beta"].append(state["beta"])
    if "recall" in inputs:
        method = registry.method("faker-air", lambda_init=config["lambda_init"])
        held = method.init(size=1)[f"shaping/{constrained.__name__}"]
        out |= {"lambda_rec": [], "lambda_far": []}
        for recall, far in zip(inputs["recall"], inputs["far"], strict=True):
            goals = {"floor": config["recall_floor"], "target": config["far_target"], "most": config["lambda_max"]}
            held = steer_lambdas(held, recall, far, gains=gains, **goals)
            for name in ("lambda_rec", "lambda_far"):
                out[name].append(held[name])
    return out


def random_fields(batch, generator):
    return batch.with_rollouts(step_kl=torch.rand(batch.size, generator=generator).double())


TRAIN = {"lr": 3e-3}
