import torch

from cohort import registry
from cohort.environments.team import vote
from cohort.types import Batch, StepInfo
from cohort.types.batch import label_of
from tests.golden.runner import tensor
from tests.helpers import with_rewards

IGNORE = ("ratio",)
NAMED = ("result", "format", "collaboration")
HYPER = {"parts": NAMED}


def _everyone(inputs):
    """A row of each agent and joint rollout, those that were left out included: their rewards are known, too."""
    count, agents = len(inputs["result"]), inputs["agents"]
    names = ("mask", "logp", "old_logp", "ref_logp")
    fields = {name: torch.cat([tensor(agent[name]) for agent in agents]) for name in names}
    parts = [
        torch.tensor(inputs["result"]).repeat(len(agents)),
        *map(torch.tensor, (inputs["format"], inputs["collaboration"])),
    ]
    components = torch.stack([part.double().flatten() for part in parts], 1)
    group = torch.arange(len(agents)).repeat_interleave(count)
    logp = fields.pop("logp").requires_grad_()
    made = Batch.of(
        fields.pop("mask").bool(),
        group=group,
        rewards=torch.zeros(len(group), dtype=torch.float64),
        reward_components=components,
        logp=logp,
        **fields,
    )
    labels = torch.tensor([label_of(f"agent {i}") for i in range(len(agents))])
    return made.with_rollouts(agent=labels[group]), {"logp": logp}


def _active(inputs):
    return torch.tensor(inputs["active"]).bool()


def batch(case):
    """An agent that was left out of a rollout has no part in it."""
    made, leaves = _everyone(case["inputs"])
    return made.select(_active(case["inputs"]).flatten().nonzero()[:, 0]), leaves


def _by_agent(run, values):
    active = _active(run.inputs)
    out = torch.zeros(active.shape, dtype=values.dtype)
    out[active] = values
    return out


def _losses(run):
    made = run.trained
    return [
        run.bound.loss(made.select((made.group == i).nonzero()[:, 0])).total for i in range(len(run.inputs["agents"]))
    ]


OUTPUTS = {
    "rewards": lambda run: run.bound.shape(_everyone(run.inputs)[0]).rewards.reshape(_active(run.inputs).shape),
    "advantages": lambda run: _by_agent(run, run.trained["outcome_advantage"]),
    "loss": _losses,
    "grad_logp": lambda run: run.gradients["logp"].reshape(*_active(run.inputs).shape, -1),
}


def KIND_reward(case):
    parts = torch.stack([tensor(case["inputs"][name]) for name in NAMED], 1).double()
    made = Batch.of(torch.ones(len(parts), 1), group=torch.zeros(len(parts)), rewards=parts[:, 0])
    made = made.replace(reward_components=parts)
    return {
        "rewards": registry.method("videochat-m1", **HYPER).bind(info=StepInfo(reward_names=NAMED)).shape(made).rewards
    }


def KIND_rollout(case):
    team = case["inputs"]["team_answers"]
    return {
        "vote": [vote(answers) for answers in case["inputs"]["answers"]],
        "vote_active": [
            vote([answer for answer, on in zip(team, mask, strict=True) if on]) for mask in case["inputs"]["active"]
        ],
    }


def random_fields(batch, generator):
    """Two agents, of a group each."""
    agent = batch.groups.index % 2
    batch = with_rewards(batch, *torch.randint(0, 2, (3, batch.size), generator=generator).to(batch.dtype))
    return batch.with_rollouts(agent=agent)
