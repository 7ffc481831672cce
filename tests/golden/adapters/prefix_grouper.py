"""Shared-prefix execution: attention, layout and update are those that training uses."""

import torch

from cohort.policies import attention
from cohort.policies.attention import Layout, Share, shared_prefix_attention
from cohort.policies.packing import pack
from cohort.policies.sequences import Sequences
from cohort.training.update import gradient
from cohort.types import Batch
from tests.golden.runner import make_method, tensor
from tests.golden.tiny import gradients, in_chunks, policy_of, same

CPU = torch.device("cpu")


def attend(layout, q, k, v, scale):
    """Attention of one head in a packed row: [N, D]."""
    token = attention._layout.set(layout)
    try:
        out, _ = shared_prefix_attention(None, q[None, None], k[None, None], v[None, None], None, scaling=scale)
    finally:
        attention._layout.reset(token)
    return out[0, :, 0]


def attention_split(inputs):
    names = {"q": "q_prefix", "k": "k_prefix", "v": "v_prefix"}
    prefix = {name: tensor(inputs[key]).requires_grad_() for name, key in names.items()}
    suffix = {name: [tensor(each) for each in inputs[f"{name}_suffix"]] for name in names}
    lengths = tuple(len(each) for each in suffix["q"])
    length = len(prefix["q"])
    rows = [torch.cat([prefix[name], *suffix[name]]) for name in names]
    out = attend(Layout((Share(0, length, lengths),), CPU), *rows, rows[0].shape[1] ** -0.5)
    first, *rest = out.split([length, *lengths])
    probe = tensor(inputs["probe"])
    scalar = len(lengths) * (first * probe).sum() + sum((each * probe).sum() for each in rest)
    grads = torch.autograd.grad(scalar, list(prefix.values()))
    found = {f"grad_{key}": grad for key, grad in zip(names.values(), grads, strict=True)}
    return {"o_prefix": first, "o_suffix": rest, "scalar": scalar, **found}


def pairs(layout):
    """How many keys all queries of a row meet: equal scores and values of a coordinate each show which."""
    count = layout.shares[-1].end
    zeros = torch.zeros(count, count, dtype=torch.float64)
    return int((attend(layout, zeros, zeros, torch.eye(count, dtype=torch.float64), 1.0) > 0).sum())


def layout(case):
    groups, left = case["inputs"]["group_info"], case["config"]["padding"] == "left"
    width = max(sum(group) for group in groups)
    found = {name: [] for name in case["expected"]}
    for length, *lengths in groups:
        padding = [0] * (width - length - sum(lengths))
        row = Layout((Share(0, length, tuple(lengths)),), CPU)

        def padded(values, fill, padding=padding):
            rest = [fill] * len(padding)
            return rest + values if left else values + rest

        found["position_ids"].append(padded(row.positions().tolist(), 0))
        owners = torch.repeat_interleave(torch.arange(len(lengths) + 1), torch.tensor([length, *lengths]))
        found["segment"].append(padded(owners.tolist(), -1))
        completions = tuple(torch.zeros(count, dtype=torch.int64) for count in lengths)
        packed = pack(Sequences((torch.zeros(length, dtype=torch.int64),) * len(lengths), completions), CPU)
        # Our rows leave out the last token of every suffix, which predicts nothing.
        at = packed.source + torch.where(packed.source >= length, packed.row, 0) + len(padding) * left
        found["predicting_position"].append([at[packed.row == i].tolist() for i in range(len(lengths))])
        if "attention_pairs_shared" in found:
            alone, start = [], 0
            for count in lengths:
                alone.append(Share(start, length, (count,)))
                start += length + count
            found["attention_pairs_shared"].append(pairs(row))
            found["attention_pairs_repeated"].append(pairs(Layout(tuple(alone), CPU)))
    return found


def KIND_execution(case):
    return attention_split(case["inputs"]) if "probe" in case["inputs"] else layout(case)


def KIND_loss(case):
    inputs, config = case["inputs"], case["config"]
    policy = policy_of(inputs["params"])
    completions = tuple(torch.tensor(ids) for ids in inputs["suffix_ids"])
    sequences = Sequences((torch.tensor(inputs["prefix_ids"]),) * len(completions), completions)
    lengths = [len(ids) for ids in completions]
    old = torch.nn.utils.rnn.pad_sequence([tensor(row) for row in inputs["old_logp"]], batch_first=True)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    group = torch.zeros(len(lengths), dtype=torch.int64)
    batch = Batch.of(mask, group=group, rewards=tensor(inputs["rewards"]), old_logp=old)
    method = make_method("grpo", {**config, "kl_beta": 0.0}, None)
    batch = method.bind().assign(batch)
    found = []
    for activations in ("keep", "checkpoint", "stream"):
        with in_chunks(policy, activations, 4):
            done = gradient(policy, method.bind(), batch, sequences, temperature=1.0, micro_tokens=99, on_policy=False)
        logp = [done.fields["logp"][i, :count] for i, count in enumerate(lengths)]
        found.append({"logp": logp, "loss": torch.tensor(done.loss), "grads": gradients(policy)})
    return {"advantages": batch.advantages[:, 0], **same(found)}
