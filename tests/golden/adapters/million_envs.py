from unittest import mock

import torch

from cohort import registry
from cohort.analysis.outer_loop import ascent, plateau
from cohort.axes.critic import gae, whiten
from cohort.policies.roles import Roles, total_weight
from cohort.reductions.kl import data_to_divergence, k3
from cohort.training.merging import minibatches
from cohort.training.scaling import scaled
from cohort.training.update import of_tokens
from cohort.types import Batch
from tests.golden.runner import tensor

# At the rate of the other methods its advantages, of variance 1 at every token, sometimes overshoot.
TRAIN = {"lr": 4e-3, "steps": 40}


def KIND_schedule(case):
    config = dict(case["config"])
    steps, base = config.pop("steps"), config.pop("envs")
    return {
        rule: [vars(scaled(envs * steps, base=base * steps, rule=rule, **config)) for envs in case["inputs"]["envs"]]
        for rule in case["expected"]
    }


def KIND_model(case):
    config, inputs = case["config"], case["inputs"]
    known = {"curvature": config["curvature"], "sigma": config["sigma"]}
    runs = {}
    for name, (step, samples, cut) in config["runs"].items():
        made = ascent(inputs["noise"], start=config["start"], step=step, samples=samples, cut=cut, **known)
        runs[name] = dict(zip(("x", "variance"), made, strict=True))
    ends = [plateau(step=step, samples=samples, **known) for step, samples in inputs["settings"]]
    variance, loss = zip(*ends, strict=True)
    return {"runs": runs, "plateau_variance": variance, "plateau_loss": loss}


def KIND_metric(case):
    """The estimator of single tokens, in its mean over what the old policy draws."""
    old, new = (tensor(case["inputs"][name]).log_softmax(-1) for name in ("old_logits", "new_logits"))
    kl = float((old.exp() * k3(old, new)).sum(-1).mean())
    samples = case["config"]["envs"] * case["config"]["steps"]
    return {"kl": kl, "ratio": data_to_divergence(samples, kl)}


def KIND_advantage(case):
    """An environment is a row, the discount 0 after the last step of an episode; minibatches as the trainer cuts them."""
    inputs, config = case["inputs"], case["config"]
    reward, value, live = tensor(inputs["reward"]).T, tensor(inputs["value"]).T, 1 - tensor(inputs["done"]).T
    mask = torch.ones_like(reward, dtype=torch.bool)
    advantage = gae(reward, value[:, :-1], mask, gamma=config["gamma"] * live, lam=config["lam"], end=value[:, -1])
    order, flat = inputs["permutation"], advantage.T.flatten()
    each = Batch.of(torch.ones(len(order), 1), group=torch.arange(len(order)), rewards=flat)
    with mock.patch("torch.randperm", return_value=torch.tensor(order)):
        cut = minibatches(each, len(order) // config["minibatch"], torch.Generator())
    # The trainer's minibatches keep the order of the batch.
    rows = [[number for number in order if number in part.tolist()] for part in cut]
    white = [whiten(flat[part][None], mask.new_ones(1, len(part)), eps=config["eps"] ** 2, ddof=0)[0] for part in rows]
    return {"advantage": advantage.T, "return": (advantage + value[:, :-1]).T, "minibatches": rows, "normalised": white}


def KIND_loss(case):
    inputs, config = case["inputs"], case["config"]
    logits, value = tensor(inputs["logits"]).requires_grad_(), tensor(inputs["value"])[:, None].requires_grad_()
    actions = torch.tensor(inputs["actions"])[:, None]
    scored, proximal = (x.log_softmax(-1) for x in (logits, tensor(inputs["proximal_logits"])))
    logp, entropy = scored.gather(1, actions), -(scored.exp() * scored).sum(-1, keepdim=True)
    batch = Batch(
        mask=torch.ones_like(actions, dtype=torch.bool),
        tokens={
            "logp": logp,
            "entropy": entropy,
            "values": value,
            "old_values": value.detach(),
            "returns": tensor(inputs["value_target"])[:, None],
            "sampler_logp": tensor(inputs["behaviour_logp"])[:, None],
            "ema_logp": proximal.gather(1, actions),
            "advantages": tensor(inputs["advantages"])[:, None],
        },
        rollouts={"group": torch.arange(len(actions)), "rewards": tensor(inputs["advantages"])},
    )
    method = registry.method(
        "million-envs",
        whiten="none",
        clip_low=config["clip"],
        clip_high=config["clip"],
        cap=config["importance_max"],
        entropy_coef=config["entropy_coef"],
        proximal_coef=config["kl_penalty"],
        value_coef=config["value_coef"],
    )
    loss = method.bind().loss(batch)
    push = of_tokens(loss, batch.logp)["policy_gradient"]
    grads = torch.autograd.grad(loss.total, (logits, value))
    terms = loss.regularizers
    return {
        "policy_loss": loss.policy,
        "entropy": -terms["entropy_bonus"] / config["entropy_coef"],
        "penalty": terms["proximal_penalty"] / config["kl_penalty"],
        "value_loss": terms["value_loss"] / config["value_coef"],
        "loss": loss.total,
        "clipped": (push == 0)[:, 0].int(),
        "grad_logits": grads[0],
        "grad_value": grads[1][:, 0],
    }


def KIND_regularizer(case):
    """The role that the trainer moves; a further parameter is the number of the update, and so tells the average's age."""
    decay, steps = case["config"]["decay"], []
    policy = torch.nn.Linear(4, 1, bias=False, dtype=torch.float64)

    def become(number, parameters):
        policy.weight.data = torch.tensor([[*parameters, float(number)]], dtype=torch.float64)

    given = case["inputs"]["parameters"]
    become(0, given[0])
    roles = Roles(policy)
    roles.make("ema", decay=decay, unbiased=True)
    for number in range(1, 200):
        become(number, given[min(number, len(given) - 1)])
        roles.move(number)
        average = roles.models["ema"].weight[0].tolist()
        age = number - average[3]
        steps.append({"parameters": average[:3], "total_weight": total_weight(decay, number), "mean_age": age})
    return {"steps": steps[: len(given) - 1], "limit_age": age}


def random_fields(batch, generator):
    """The values before and under the loss, and the average's log-probabilities."""

    def noise():
        return 0.3 * torch.randn(batch.mask.shape, generator=generator, dtype=batch.dtype)

    old = noise()
    return batch.with_tokens(old_values=old, values=old + noise(), ema_logp=batch.old_logp + noise())


def _outer_loop(inputs, config, which):
    """Iterations of one-step environments: the method's own loss where the proximal policy is the one that drew."""
    theta = tensor(inputs["theta"]).requires_grad_()
    optimizer = torch.optim.SGD([theta], config["lr"])
    method = registry.method("million-envs", clip_low=config["clip"], clip_high=config["clip"], value_coef=1.0).bind()
    out = []
    given = (inputs[f"{name}_{which}"] for name in ("uniform", "reward", "permutation"))
    for uniform, reward, orders in zip(*given, strict=True):
        old = theta.detach().log_softmax(-1)
        actions = torch.searchsorted(old.exp().cumsum(-1), tensor(uniform))
        gained = tensor(reward).gather(1, actions[:, None])
        drawn = old[actions][:, None]
        nothing = torch.zeros_like(drawn)
        whole = Batch(
            mask=torch.ones_like(drawn, dtype=torch.bool),
            tokens={"sampler_logp": drawn, "ema_logp": drawn, "advantages": gained, "logp": drawn}
            | dict.fromkeys(("values", "old_values", "returns"), nothing),
            rollouts={"group": torch.arange(len(actions)), "rewards": gained[:, 0]},
        )
        updates = 0
        for order in orders:
            with mock.patch("torch.randperm", return_value=torch.tensor(order)):
                cut = minibatches(whole, len(order) // config["minibatch"], torch.Generator())
            for rows in cut:
                logp = theta.log_softmax(-1)[actions[rows]][:, None]
                optimizer.zero_grad()
                method.loss(whole.select(rows).with_tokens(logp=logp)).total.backward()
                optimizer.step()
                updates += 1
        new = theta.detach().log_softmax(-1)
        kl = float((old.exp() * k3(old, new)).sum())
        ratio = data_to_divergence(len(actions), kl)
        row = {"actions": actions, "theta": theta.detach().clone(), "updates": updates, "kl": kl}
        out.append(row | {"data_to_divergence": ratio})
    return out


def KIND_optimizer(case):
    return {which: _outer_loop(case["inputs"], case["config"], which) for which in case["expected"]}
