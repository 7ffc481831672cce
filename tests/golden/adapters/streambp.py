"""The chunked backward pass: layers and output layer in chunks, through the update that training uses."""

from types import SimpleNamespace

import torch

from cohort import registry
from cohort.policies.attention import Layout, Share
from cohort.policies.chunks import cut
from cohort.policies.sequences import Sequences
from cohort.training.update import gradient
from cohort.types import Batch
from tests.golden.preferences import paired
from tests.golden.runner import make_method, tensor
from tests.golden.tiny import gradients, in_chunks, policy_of, same

# Sizes of chunks are no hyperparameters of the method.
ADAPTER = SimpleNamespace(IGNORE=("chunk_sizes",))


def KIND_loss(case):
    inputs, config = case["inputs"], case["config"]
    policy = policy_of(inputs["params"])
    ids, at = torch.tensor(inputs["ids"]), inputs["prompt_length"]
    sequences = Sequences((ids[:at],), (ids[at:],))
    count = len(ids) - at
    advantages = torch.full((1, count), inputs["advantage"], dtype=torch.float64)
    batch = Batch.of(
        torch.ones(1, count, dtype=torch.bool),
        group=torch.zeros(1, dtype=torch.int64),
        rewards=torch.zeros(1, dtype=torch.float64),
        old_logp=tensor([inputs["old_logp"]]),
        advantages=advantages,
    )
    method = make_method("grpo", {**config, "kl_beta": 0.0}, ADAPTER)

    def update(part):
        done = gradient(policy, method.bind(), part, sequences, temperature=1.0, micro_tokens=99, on_policy=False)
        return done.loss, gradients(policy)

    whole, parts = [], {}
    for size in config["chunk_sizes"]:
        with in_chunks(policy, "stream", size):
            loss, grads = update(batch)
            whole.append({"loss": torch.tensor(loss), "grads": grads})
            # The loss is linear in the advantages: those of a chunk alone give its part, over the whole's divisor.
            place = torch.arange(count) // size
            parts[str(size)] = [
                update(batch.replace(advantages=torch.where(place == i, advantages, 0.0)))[0]
                for i in range(int(place[-1]) + 1)
            ]
    return {**same(whole), "chunk_losses": parts}


def sft(case):
    inputs, size = case["inputs"], case["config"]["chunk_size"]
    policy = policy_of(inputs["params"])
    ids, valid = torch.tensor(inputs["ids"]), torch.tensor(inputs["valid"]).bool()
    # Without a prompt: every token but the first is predicted.
    sequences = Sequences((ids[:1],), (ids[1:],))
    with in_chunks(policy, "stream", size):
        logp = policy.log_probs(sequences, width=len(valid))["logp"][0]
        loss = -(logp * valid).sum() / valid.sum()
        loss.backward()
    lost, there = (-logp.detach() * valid).split(size), valid.split(size)
    means = [part.sum() / max(1, int(count.sum())) for part, count in zip(lost, there, strict=True)]
    tokens = [int(count.sum()) for count in there]
    return {"chunk_mean": means, "chunk_tokens": tokens, "loss": loss, "grad_head": gradients(policy)["head"]}


def dpo(case):
    """What the first of the update's two passes sends back into the second."""
    sides = {name: [case["inputs"][f"{key}_{name}"]] for name in ("chosen", "rejected") for key in ("logp",)}
    inputs = {f"{name}_logp": value for name, value in sides.items()}
    inputs |= {f"{name}_ref_logp": [case["inputs"][f"ref_{name}"]] for name in sides}
    inputs |= {f"{name}_mask": [[1] * len(value[0])] for name, value in sides.items()}
    batch, leaves = paired(inputs)
    method = registry.recipe("dpo")(beta=case["config"]["beta"])
    assert method.couples
    loss = method.bind().loss(batch).total
    chosen, rejected = torch.autograd.grad(loss, [leaves["chosen_logp"], leaves["rejected_logp"]])
    return {"loss": loss, "token_weight": chosen[0, 0], "grad_chosen": chosen[0], "grad_rejected": rejected[0]}


def work(case):
    """Query-key pairs that a backward pass recomputes, from its own plan."""
    length = case["inputs"]["length"]
    row = Layout((Share(0, 1, (length - 1,)),), torch.device("cpu"))

    def pairs(size):
        return sum((c.stop - c.start) * (c.stop - c.start + sum(b - a for a, b in c.rest)) for c in cut(row, size))

    return {"recomputed_pairs": [pairs(size) for size in case["inputs"]["chunk_sizes"]], "full_pairs": pairs(length)}


def KIND_execution(case):
    run = {"sft_chunk_weights": sft, "dpo_two_pass": dpo, "attention_work": work}[case["name"]]
    return run(case)
