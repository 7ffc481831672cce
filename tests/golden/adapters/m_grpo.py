import torch

from cohort import registry
from cohort.recipes.m_grpo import align
from cohort.types import Batch, StepInfo
from cohort.types.batch import label_of
from tests.golden.runner import tensor
from tests.helpers import with_rewards

HYPER = {"format": "format", "correct": "correct", "expert": "expert"}
# Which calls are dropped or repeated is drawn for the calls in their order.
ORDERED = True
NAMED = ("format", "correct", "expert")
MAIN, SUB = label_of("main"), label_of("sub")


def _joined(a, b):
    """Rows of the main agent, then those of its sub-agents, as wide as the wider of both."""
    width = max(a.shape[1], b.shape[1])
    return torch.cat([torch.nn.functional.pad(each, (0, width - each.shape[1])) for each in (a, b)])


def _agents(main, sub):
    return torch.tensor([MAIN] * main + [SUB] * sub)


def _aligned(inputs, slots):
    """Slots of each rollout, as places among its own calls."""
    return align(torch.tensor(inputs["n_invocations"]), tensor(inputs["keys"]), slots)


def _of_rows(inputs, slots):
    """Slots of each rollout, as rows of the sub-agents; -1 where there are none."""
    first = torch.tensor([0, *inputs["n_invocations"][:-1]]).cumsum(0)
    aligned = _aligned(inputs, slots)
    return torch.where(aligned >= 0, aligned + first[:, None], -1)


def batch(case):
    inputs = case["inputs"]
    group, owner = torch.tensor(inputs["group"]), torch.tensor(inputs["sub_owner"])
    main, sub = len(group), len(owner)
    leaves = {name: tensor(inputs[name]).requires_grad_() for name in ("logp", "sub_logp")}
    rows = _of_rows(inputs, case["config"]["slots"])
    held = torch.bincount(rows[rows >= 0], minlength=sub)
    zero = torch.zeros(sub, dtype=torch.float64)
    parts = [
        torch.cat([tensor(inputs["main_format"]), tensor(inputs["sub_format"])]).double(),
        torch.cat([tensor(inputs["main_correct"]), zero]),
        torch.cat([torch.zeros(main, dtype=torch.float64), tensor(inputs["sub_expert"])]),
    ]
    made = Batch.of(
        _joined(tensor(inputs["mask"]), tensor(inputs["sub_mask"])).bool(),
        group=torch.cat([group, group[owner] + 100]),
        rewards=torch.zeros(main + sub, dtype=torch.float64),
        reward_components=torch.stack(parts, 1),
        logp=_joined(leaves["logp"], leaves["sub_logp"]),
        old_logp=_joined(tensor(inputs["old_logp"]), tensor(inputs["sub_old_logp"])),
    )
    made = made.with_rollouts(agent=_agents(main, sub), episode=torch.cat([torch.arange(main), owner]))
    return made.with_rollouts(copies=torch.cat([torch.ones(main, dtype=torch.int64), held])), leaves


def _part(run, agent):
    return run.trained.select((run.trained.agent == agent).nonzero()[:, 0])


def _in_slots(run):
    rows = _of_rows(run.inputs, run.config["slots"])
    own = _part(run, SUB)["outcome_advantage"]
    return torch.where(rows >= 0, own[rows.clamp(min=0)], 0.0)


OUTPUTS = {
    "main_rewards": lambda run: _part(run, MAIN).rewards,
    "sub_rewards": lambda run: _part(run, SUB).rewards,
    "aligned": lambda run: _of_rows(run.inputs, run.config["slots"]),
    "advantages": lambda run: _part(run, MAIN)["outcome_advantage"],
    "sub_advantages": _in_slots,
    "loss": lambda run: run.bound.loss(_part(run, MAIN)).total,
    "sub_loss": lambda run: run.bound.loss(_part(run, SUB)).total,
}


def KIND_rollout(case):
    return {"aligned": _aligned(case["inputs"], case["config"]["slots"])}


def KIND_reward(case):
    """One call of the sub-agent in each rollout; the released rewards are those of other coefficients."""
    inputs, config = case["inputs"], case["config"]
    count = len(inputs["main_format"])
    zero = torch.zeros(count, dtype=torch.float64)
    parts = torch.stack(
        [
            torch.cat([tensor(inputs["main_format"]), tensor(inputs["sub_format"])]).double(),
            torch.cat([tensor(inputs["main_correct"]).double(), zero]),
            torch.cat([zero, tensor(inputs["sub_expert"])]),
        ],
        1,
    )
    made = Batch.of(torch.ones(2 * count, 1), group=torch.zeros(2 * count), rewards=torch.cat([zero, zero]))
    made = made.replace(reward_components=parts).with_rollouts(
        agent=_agents(count, count), episode=torch.arange(count).repeat(2)
    )
    info, out = StepInfo(reward_names=NAMED), {}
    for prefix, hyper in (("", {"alpha": tuple(config["alpha"]), "beta": tuple(config["beta"])}), ("released_", {})):
        rewards = registry.method("m-grpo", **HYPER, **hyper).bind(info=info).shape(made).rewards
        out |= {f"{prefix}main_reward": rewards[:count], f"{prefix}sub_reward": rewards[count:]}
    return out


def random_fields(batch, generator):
    """The rollouts of every other group are calls of a sub-agent."""
    called = batch.groups.index % 2 == 1
    episode = torch.arange(batch.size) // 2
    label = torch.where(called, SUB, MAIN)
    batch = with_rewards(batch, *torch.randint(0, 2, (3, batch.size), generator=generator).to(batch.dtype))
    return batch.with_rollouts(agent=label, episode=episode)
