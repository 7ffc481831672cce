"""Updates that are far from the policy that drew the rollouts."""

from __future__ import annotations

import numpy as np

from cohort.doctor.finding import Evidence, Missing, Seen, Try, diagnosis
from cohort.doctor.ratios import COLUMNS, log_ratios
from cohort.doctor.record import Record


@diagnosis(
    Try("fewer updates a step", settings=("updates", "epochs")),
    Try("smaller steps", settings=("lr",)),
    Try("trust regions that hold at larger distances", methods=("r2vpo", "etr")),
    columns=COLUMNS,
)
def staleness(record: Record) -> Seen | None:
    """By the last update of a step the policy is far from the one that drew the step's rollouts.

    Threshold: a mean KL divergence (k3 estimate) of sampling policy and policy at the last update above 0.05 nats a
    token over the last sampled steps, an alarm from 0.2. PPO implementations stop the epochs of a step at 0.015 to 0.03;
    one update a step has 0.
    Meaning: the rollouts are stale: much of the update is clipped, the rest is weighted by ratios that rest on few
    tokens. More passes over old rollouts no longer help, and can undo what was learnt.
    Source: PPO, arXiv:1707.06347; target KL as in the implementation study "The 37 implementation details of PPO"; on
    asynchronous training, AReaL, arXiv:2505.24298
    """
    steps, values = [], []
    for each in record.recent("logp", "sampler_logp"):
        difference = np.clip(log_ratios(each), -20, 20)
        if len(difference):
            steps.append(each.step)
            values.append(float((np.exp(difference) - 1 - difference).mean()))
    if not values:
        raise Missing("needs rollouts that were trained on")
    distance = float(np.mean(values))
    if distance < 0.05:
        return None
    updates = int(record.config.get("updates") or 1) * int(record.config.get("epochs") or 1)
    text = f"mean KL of {distance:.3g} nats a token in steps {steps[0]}-{steps[-1]}, with {updates} update(s) a step"
    if (age := record.series_or_none("rollouts/age_mean")) is not None:
        text += f" and rollouts that are {age.end:.2g} steps old"
    return Seen(
        "alarm" if distance >= 0.2 else "warning",
        f"updates are {distance:.2g} nats a token away from the policy that sampled",
        (Evidence(text, tuple(steps), {"kl": distance, "updates": float(updates)}, record.at(steps[-1])),),
    )
