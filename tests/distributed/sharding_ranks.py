"""Run by torchrun for test_sharding.py: what two ranks get together, measured against one process in each of them."""

from __future__ import annotations

import datetime
import itertools
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from cohort import registry
from cohort.distributed.sharding import ShardedLM, clip, gather, load, parts_of, publish, shard, twin
from cohort.policies.causal_lm import CausalLM
from cohort.policies.passes import attempts
from cohort.policies.sequences import Sequences
from cohort.training.precision import MasterWeights
from tests.helpers import in_float64, tiny_policy

WIDTH = 12
# Rows of each rank; groups span ranks, and the first one has more passes.
ROWS = ([0, 1, 2, 4, 6], [3, 5, 7])
OPTIMIZERS = {
    "adamw": "grpo",
    "lion": "lion",
    "stosignsgd": "stosignsgd",
    **{f"lion-{kappa}": f"lion(kappa='{kappa}', cut=0.001)" for kappa in ("l2", "huber", "l1_trunc", "linf")},
}

# Ranks that compute each layer together; not everything of transformers' own computes in float64.
TENSOR: list[dict[str, Any]] = [
    {"way": "optimizer", "lora": False, "activations": "keep", "critic": "", "kind": "qwen3", "float64": True},
    {"way": "parameters", "lora": False, "activations": "stream", "critic": "model", "kind": "qwen3", "float64": True},
    {
        "way": "parameters",
        "lora": False,
        "activations": "checkpoint",
        "critic": "head",
        "kind": "gemma2",
        "float64": False,
    },
]


def chosen(everything: bool) -> list[dict[str, Any]]:
    """Cases whose gradients are compared; not everything: each value of each with each way."""
    names = ("way", "lora", "activations", "critic", "kind")
    values = ("optimizer", "parameters"), (False, True), ("keep", "checkpoint", "stream"), ("", "head", "model")
    # Qwen3's output layer has weights of its own, Gemma2's are those of the embeddings.
    cases = [
        dict(zip(names, case, strict=True), float64=False)
        for i, case in enumerate(itertools.product(*values, ("qwen3", "gemma2")))
        if everything or i % 18 in (1, 8, 16)
    ]
    exact = [{**case, "kind": "qwen3", "float64": True} for case in cases]
    return [*cases, *(exact if everything else exact[::5])]


def name_of(case: dict[str, Any]) -> str:
    return "-".join(str(value) for value in case.values())


def some_actions(policy: CausalLM) -> Sequences:
    """Eight rollouts of four prompts."""
    rng = torch.Generator().manual_seed(3)
    prompts = [torch.randint(3, 100, (n,), generator=rng).tolist() for n in (7, 7, 5, 9)]
    lengths = torch.randint(2, WIDTH, (8,), generator=rng).tolist()
    tokens = [torch.randint(3, 100, (n,), generator=rng).tolist() for n in lengths]
    return policy.actions_after([prompts[i % 4] for i in range(8)], tokens)


def loss_of(found: dict[str, Tensor], rows: Tensor) -> Tensor:
    """A sum over tokens with weights that the whole batch fixes."""
    weight = torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(5), dtype=torch.float64)[rows]
    weight = weight.to(found["logp"].dtype)
    loss = (found["logp"] * weight).sum() + 0.1 * found["entropy"].sum()
    if "values" in found:
        loss = loss + (found["values"].square() * weight).sum() + found["values"].sum()
    return loss


def made(
    kind: str = "qwen3", *, lora: bool = False, critic: str = "", activations: str = "keep", float64: bool = False
) -> CausalLM:
    """A policy with models in roles, the same on all ranks."""
    policy = tiny_policy(kind)
    if lora:
        policy.add_lora(4)
        with torch.no_grad():
            for name, parameter in policy.model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(1))
    policy.use_activations(activations)
    policy.roles.make("reference")
    if critic:
        torch.manual_seed(2)
        policy.roles.make("critic", kind=critic)
        # A head of zeros, as it begins, sends no gradient on.
        torch.nn.init.normal_(policy.roles.models["critic"].head.weight)  # type: ignore[union-attr, arg-type]
    return in_float64(policy) if float64 else policy


def passes(policy: ShardedLM, mesh: DeviceMesh, actions: Sequences, want: frozenset[str]) -> int:
    """This rank's forward and backward passes over its rows, and the sum of all ranks' gradients."""
    rows = torch.tensor(ROWS[mesh.get_local_rank("data")] if mesh["data"].size() > 1 else [*range(8)])
    parts = policy.micro_batches(actions.select(rows), 40)
    most = torch.tensor(len(parts))
    dist.all_reduce(most, dist.ReduceOp.MAX)
    policy.ready_to_update()
    for part in parts:
        loss_of(policy.log_probs(actions.select(rows[part]), width=WIDTH, want=want), rows[part]).backward()
    if policy.way == "parameters":
        for _ in range(int(most) - len(parts)):
            policy.idle_pass(want)
    policy.reduce()
    return len(parts)


def furthest(one: CausalLM, two: CausalLM, of: Callable[[Tensor], Tensor | None], *, relative: bool = True) -> float:
    """The largest difference of parameters, or of what belongs to them, in all roles."""
    worst = 0.0
    for role, model in one.roles.models.items():
        pairs = zip(model.named_parameters(), two.roles.models[role].named_parameters(), strict=True)
        for (name, own), (other_name, other) in pairs:
            assert name == other_name
            right, found = of(own), of(other)
            assert (right is None) == (found is None), f"{role} {name}: only one has a gradient"
            if right is not None and found is not None:
                over = float(right.abs().max()) if relative else 1.0
                worst = max(worst, float((found.full_tensor() - right).abs().max()) / over)  # type: ignore[attr-defined]
    return worst


def gradients(mesh: DeviceMesh, *, way: str, **how: Any) -> dict[str, Any]:
    one, two = made(**how), shard(made(**how), mesh, way)  # type: ignore[arg-type]
    assert isinstance(two, ShardedLM)
    actions = some_actions(one)
    want = frozenset({"logp", "entropy", "values"} if how["critic"] else {"logp", "entropy"})
    loss_of(one.log_probs(actions, width=WIDTH, want=want), torch.arange(8)).backward()
    two.ready("reference", frozenset({"logp"}))
    with torch.no_grad():
        scored = two.log_probs(actions, width=WIDTH, role="reference")["logp"]
        right = one.log_probs(actions, width=WIDTH, role="reference")["logp"]
    two.rest()
    count = passes(two, mesh, actions, want)
    return {
        "gradient": furthest(one, two, lambda p: p.grad),
        "reference": float((scored - right).abs().max()),
        "passes": count,
    }


def steps(mesh: DeviceMesh, *, method: str, way: str) -> dict[str, Any]:
    """Three updates, with roles that follow."""
    stage = registry.method(method).stage("optimizer")
    decay = {} if "weight_decay" in stage.hyper else {"weight_decay": 0.1}

    def begin() -> CausalLM:
        policy = made("qwen3", critic="model", float64=True)
        policy.roles.make("ema", decay=0.9)
        policy.roles.make("old", every=2)
        policy.roles.make("target")
        return policy

    def optimizer(policy: CausalLM) -> MasterWeights:
        trained = policy.trainable()
        return MasterWeights(trained, lambda p: stage(p, 1e-2, **decay), scaled=(policy.roles.trained(), 2.0))

    one, two = begin(), shard(begin(), mesh, way)  # type: ignore[arg-type]
    assert isinstance(two, ShardedLM)
    first, second = optimizer(one), optimizer(two)
    actions, want = some_actions(one), frozenset({"logp", "entropy", "values"})
    norms = []
    for update in range(1, 4):
        loss_of(one.log_probs(actions, width=WIDTH, want=want), torch.arange(8)).backward()
        passes(two, mesh, actions, want)
        norms += [float(torch.nn.utils.clip_grad_norm_(first.params, 1.0)), clip(second.params, 1.0)]
        for each, policy in ((first, one), (second, two)):
            each.step()
            policy.roles.move(update)
            each.zero_grad()
    sizes = [sum(map(held, state.inner.state.values())) for state in (first, second)]
    return {
        "weights": furthest(one, two, lambda p: p.detach(), relative=False),
        "norms": norms,
        "state": sizes[1] / sizes[0],
    }


def held(state: dict[str, Any]) -> int:
    """Bytes of an optimizer's state of a parameter on this rank."""
    tensors = [getattr(value, "_local_tensor", value) for value in state.values() if isinstance(value, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def half(mesh: DeviceMesh, *, way: str) -> dict[str, Any]:
    """bfloat16 weights with float32 masters, and updates that are lost in bfloat16."""
    two = shard(made("qwen3").__class__(tiny_policy(dtype=torch.bfloat16).model), mesh, way)  # type: ignore[arg-type]
    assert isinstance(two, ShardedLM)
    optimizer = MasterWeights(two.trainable(), lambda p: torch.optim.AdamW(p, lr=1e-6, weight_decay=0.0))
    before = [master.detach().full_tensor() for master in optimizer.masters]
    actions = some_actions(two)
    for _ in range(2):
        passes(two, mesh, actions, frozenset({"logp", "entropy"}))
        optimizer.step()
        optimizer.zero_grad()
    after = [master.detach().full_tensor() for master in optimizer.masters]
    rounded = [p.detach().full_tensor() for p in two.trainable()]
    return {
        "moved": min(float((a - b).abs().max()) for a, b in zip(after, before, strict=True)),
        "rounded": all(torch.equal(a.bfloat16(), p) for a, p in zip(after, rounded, strict=True)),
        "dtypes": sorted({str(p.dtype) for p in two.trainable()} | {str(m.dtype) for m in optimizer.masters}),
    }


def again(mesh: DeviceMesh) -> dict[str, Any]:
    """Memory that runs out on one rank, after a pass that went well: it begins anew by itself, and nothing counts twice."""
    one, two = made(activations="checkpoint"), shard(made(activations="checkpoint"), mesh)
    assert isinstance(two, ShardedLM)
    actions, want, rank = some_actions(one), frozenset({"logp", "entropy"}), dist.get_rank()
    loss_of(one.log_probs(actions, width=WIDTH, want=want), torch.arange(8)).backward()
    rows = torch.tensor(ROWS[rank])
    tries = 0
    two.ready_to_update()
    for attempt in attempts(two):
        with attempt:
            tries += 1
            loss_of(two.log_probs(actions.select(rows), width=WIDTH, want=want), rows).backward()
            if rank == 1 and tries == 1:
                broken = two.log_probs(actions.select(rows), width=WIDTH, want=want)["logp"].sum()
                broken.register_hook(fail)
                broken.backward()
    two.reduce()
    return {"gradient": furthest(one, two, lambda p: p.grad), "tries": tries}


def fail(gradient: Tensor) -> None:
    raise RuntimeError("CUDA out of memory")


def published(mesh: DeviceMesh, *, lora: bool) -> dict[str, Any]:
    """From parts to a whole policy and back."""
    whole = made(lora=lora)
    two = shard(twin(whole), mesh)
    model = parts_of(two)[0].model
    with torch.no_grad():
        for parameter in two.trainable():
            parameter.add_(0.25)
    right = {name: tensor.clone() for name, tensor in gather(model)}
    publish(two, whole)
    found = dict(whole.model.named_parameters())
    same = [torch.equal(found[name], tensor) for name, tensor in right.items()]
    with torch.no_grad():
        for parameter in whole.trainable():
            parameter.mul_(0.5)
    load(two, whole)
    back = [torch.equal(found[name], tensor) for name, tensor in gather(model)]
    held = sum(p.detach().to_local().numel() for p in model.parameters())  # type: ignore[attr-defined]
    return {"published": all(same), "loaded": all(back), "share": held / sum(t.numel() for t in right.values())}


def main(folder: Path, everything: bool) -> None:
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=60))
    mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("data", "tensor"))
    cases: dict[str, Callable[[], dict[str, Any]]] = {}
    for case in chosen(everything):
        cases[f"gradient {name_of(case)}"] = lambda case=case: gradients(mesh, **case)
    for name, method in OPTIMIZERS.items():
        ways = ("optimizer", "parameters") if name in ("adamw", "stosignsgd") else ("optimizer",)
        for way in ways:
            cases[f"steps {name} {way}"] = lambda method=method, way=way: steps(mesh, method=method, way=way)
    together = init_device_mesh("cpu", (1, 2), mesh_dim_names=("data", "tensor"))
    for case in TENSOR:
        cases[f"tensor {name_of(case)}"] = lambda case=case: gradients(together, **case)
    cases["tensor steps"] = lambda: steps(together, method="grpo", way="optimizer")
    cases["tensor noise"] = lambda: steps(together, method="stosignsgd", way="parameters")
    cases["tensor published"] = lambda: published(together, lora=False)
    for way in ("optimizer", "parameters"):
        cases[f"half {way}"] = lambda way=way: half(mesh, way=way)
    cases["again"] = lambda: again(mesh)
    cases["published whole"] = lambda: published(mesh, lora=False)
    cases["published lora"] = lambda: published(mesh, lora=True)
    report = {}
    for name, case in cases.items():
        print(name, flush=True)
        found: list[Any] = [None, None]
        dist.all_gather_object(found, case())
        report[name] = found
    if dist.get_rank() == 0:
        (folder / "report.json").write_text(json.dumps(report))
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        main(Path(sys.argv[1]), "everything" in sys.argv[2:])
    except BaseException:
        traceback.print_exc()
        raise
