import torch

from cohort import registry
from cohort.axes.critic import gae
from cohort.recipes.poad import action_ends, movement, normalised
from cohort.types import Batch
from tests.golden.adapters import ppo
from tests.golden.runner import tensor

RENAME = {"lambda": "lam"}
# The stop is a result of its own in these cases; loss and gradient are those that it would hold back.
IGNORE = ("max_kl", "entropy_detached", "aggregation")
HYPER = {"max_kl": None, "rewards": "turn"}


class Episodes:
    """Actions, a row each, as episodes, a rollout each: an action follows on the one before it, after a token that an
    environment wrote, unless that one ended the episode."""

    def __init__(self, inputs):
        self.lengths, self.going_on = inputs["lengths"], inputs["masks"]
        self.shape = (len(self.lengths), len(inputs["values"][0]))
        self.actions = torch.arange(self.shape[1]) < torch.tensor(self.lengths)[:, None]
        row, column, self.row, self.column = 0, 0, [], []
        for length, on in zip(self.lengths, self.going_on, strict=True):
            self.row.append([row] * self.shape[1])
            self.column.append(list(range(column, column + self.shape[1])))
            row, column = (row, column + length + 1) if on else (row + 1, 0)
        rows, columns = torch.tensor(self.row), torch.tensor(self.column)
        self.at = (rows[self.actions], columns[self.actions])
        self.size = (int(rows.max()) + 1, int(columns[self.actions].max()) + 1)

    def join(self, values):
        """[E, W] of the actions' [S, T]."""
        values = tensor(values) if isinstance(values, list) else values
        return torch.zeros(self.size, dtype=values.dtype).index_put(self.at, values[self.actions])

    def split(self, values):
        """[S, T] of the episodes' [E, W], 0 on padding."""
        out = torch.zeros(self.shape, dtype=values.dtype)
        out[self.actions] = values[self.at]
        return out

    def batch(self, inputs):
        mask = self.join(torch.ones(self.shape, dtype=torch.bool))
        rewards = self.join(tensor(inputs["rewards"])[:, None].expand(self.shape))
        ends = torch.zeros(self.size[0], dtype=torch.float64)
        if self.going_on[-1]:
            ends[self.row[-1][0]] = inputs["next_value"]
        made = Batch.of(mask, group=torch.arange(self.size[0]), rewards=torch.zeros(self.size[0], dtype=torch.float64))
        earned = torch.where(action_ends(mask), rewards, 0.0)
        return made.with_tokens(turn_rewards=earned, old_values=self.join(inputs["values"])).with_rollouts(
            next_value=ends
        )


def batch(case):
    inputs = case["inputs"]
    episodes, made = Episodes(inputs), Episodes(inputs).batch(inputs)
    names = {"logp": "logp", "entropy": "entropy", "values": "new_values"}
    leaves = {name: tensor(inputs[given]).requires_grad_() for name, given in names.items()}
    fields = {name: episodes.join(leaf) for name, leaf in leaves.items()}
    return made.with_tokens(**fields, old_logp=episodes.join(inputs["old_logp"])), leaves


def _policy(run):
    return run.loss.policy + run.loss.regularizers.get("stopping_entropy", 0.0)


OUTPUTS = {
    "advantages": lambda run: Episodes(run.inputs).split(normalised(run.assigned.advantages, run.batch.mask)),
    "returns": lambda run: Episodes(run.inputs).split(run.assigned["returns"]),
    "loss": _policy,
    "approx_kl": lambda run: movement(run.trained),
    "skip_policy_step": lambda run: bool(movement(run.trained) > run.config["max_kl"]),
    "value_loss": lambda run: run.loss.regularizers["value_loss"],
}


def KIND_advantage(case):
    inputs, config = case["inputs"], case["config"]
    episodes = Episodes(inputs)
    made = episodes.batch(inputs)

    def assigned(lam):
        return registry.method("poad", gamma=config["gamma"], lam=lam, rewards="turn").bind().assign(made)

    naive = gae(
        made["turn_rewards"],
        made["old_values"],
        made.mask,
        gamma=config["gamma"],
        lam=config["lambda"],
        end=made["next_value"],
    )
    return {
        "advantages": episodes.split(assigned(config["lambda"]).advantages),
        "returns": episodes.split(assigned(config["lambda"])["returns"]),
        "advantages_lambda_1": episodes.split(assigned(1.0).advantages),
        "advantages_naive_token_ppo": episodes.split(naive),
    }


random_fields = ppo.random_fields
