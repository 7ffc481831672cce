from types import SimpleNamespace

import torch

from cohort.recipes.multi_turn import count_parts, dense, single
from cohort.rollouts.batching import make_batch as batch_of
from cohort.types import Prompt, Request, Rollout, Segment, Turn
from tests.golden.adapters import ppo
from tests.golden.runner import make_batch

# Rewards along the tokens are given, as an environment gives them.
HYPER = {"rewards": "turn"}
IGNORE = ("aggregation",)
FIELDS = {"token_rewards": ("turn_rewards", "token"), "values": ("old_values", "token")}
# At the rate of the other methods its advantages, of variance 1 at every token, sometimes overshoot.
TRAIN = {"lr": 4e-3, "steps": 40}


def batch(case):
    made, leaves = make_batch(case["inputs"], SimpleNamespace(FIELDS=FIELDS))
    made = made.with_rollouts(truncated=torch.zeros(made.size))
    # The loss of the values is no part of what is expected.
    return (made.with_tokens(values=made._tokens["old_values"]) if "old_values" in made else made), leaves


OUTPUTS = {
    "shaped_rewards": lambda run: torch.where(run.batch.mask, run.shaped["token_rewards"], 0.0),
    "raw_advantages": lambda run: torch.where(run.batch.mask, run.assigned["returns"] - run.batch["old_values"], 0.0),
    "returns": lambda run: run.assigned["returns"] if "returns" in run.assigned else run.shaped.rewards,
    "rollout_advantages": lambda run: run.assigned["outcome_advantage"],
    "advantages": lambda run: torch.where(run.batch.mask, run.assigned.advantages, 0.0),
    "loss": lambda run: run.loss.policy,
}


def KIND_reward(case):
    """Episodes of turns, and what their environments gave, as the trainer reads them."""
    inputs, width, rollouts = case["inputs"], case["config"]["max_response_length"], []
    interim = [[b - a for a, b in zip([0.0, *scores], scores, strict=False)] for scores in inputs["score_after_turn"]]
    for i, (ends, earned) in enumerate(zip(inputs["end_of_turn_position"], interim, strict=True)):
        prompt = Prompt(str(i), "", (), "", {"most": inputs["max_total_reward"][i]})
        starts = [0, *(end + 1 for end in ends)]
        turns = [Turn(a, b + 1, (), reward) for a, b, reward in zip(starts, ends, earned, strict=False)]
        cut = not ends or ends[-1] >= width
        # Behind the last turn there is nothing, unless the episode ended inside a turn.
        length = width if cut else ends[-1] + 1
        won = inputs["final_reward"][i]
        rollouts.append(
            Rollout(
                Request(prompt, (1,), 0, width),
                (Segment(tuple(range(length))),),
                "truncated" if cut else "finished",
                turns=tuple(turns),
                reward=won,
                accuracy=won,
            )
        )
    made = batch_of(rollouts, {})
    made = made.replace(rewards=made.rewards.double()).with_tokens(turn_rewards=made["turn_rewards"].double())
    access = SimpleNamespace(rollouts=rollouts, column=lambda name: [r.prompt.row[name] for r in rollouts])
    made = count_parts(made, access, rewards="dense", max_reward="most")
    return {"interim_reward": interim, "dense": dense(made), "single": single(made)}


def random_fields(batch, generator):
    """The values before and under the loss, and whether a rollout ran out of tokens."""
    return ppo.random_fields(batch, generator).with_rollouts(truncated=torch.zeros(batch.size))
