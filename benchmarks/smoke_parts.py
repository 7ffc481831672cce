"""The parts of `benchmarks.gpu_smoke`: each shows that one path works on a device, or says that it is not here."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.smoke_place import NotHere, Place, near, peak

# what there is ---------------------------------------------------------------------------------------------------------


def device(place: Place) -> dict[str, Any]:
    import torch
    import transformers

    found = {"torch": torch.__version__, "transformers": transformers.__version__}
    if place.cuda:
        about = torch.cuda.get_device_properties(0)
        found |= {"name": about.name, "cuda": torch.version.cuda, "capability": f"{about.major}.{about.minor}"}
        found |= {"gpus": torch.cuda.device_count(), "memory_gb": about.total_memory / 1e9}
        found |= {"bfloat16": torch.cuda.is_bf16_supported()}
    x = torch.arange(1024.0, device=place.device).view(32, 32)
    near(
        float((x @ x - (x.cpu() @ x.cpu()).to(x)).abs().max()) / float((x @ x).max()), 1e-5, "a product, from the CPU's"
    )
    return found


def masters(place: Place) -> dict[str, Any]:
    """bfloat16 weights move by what is too small for them, since their float32 copies keep it."""
    import torch

    from cohort.training.precision import MasterWeights

    weight = torch.nn.Parameter(torch.ones(64, device=place.device, dtype=torch.bfloat16))
    optimizer = MasterWeights([weight], lambda params: torch.optim.SGD(params, lr=1e-3))
    for step in range(8):
        weight.grad = torch.full_like(weight, -1.0)
        optimizer.step()
        if not step:
            assert bool((weight == 1).all()), "one update of 1e-3 should be less than bfloat16 shows"
    assert bool((weight > 1).all()), "eight updates of 1e-3 should show"
    moved = float(optimizer.masters[0].detach()[0]) - 1.0
    near(abs(moved - 8e-3), 1e-6, "the float32 copy, from 8 updates of 1e-3")
    return {"moved": moved}


# scoring and sampling --------------------------------------------------------------------------------------------------


def scoring(place: Place) -> dict[str, Any]:
    """Log-probabilities with shared prompts are those of transformers' own logits."""
    import torch

    found: dict[str, Any] = {}
    _, sequences = place.groups()
    for dtype, bound in (("float32", 1e-3), ("bfloat16", 0.1)):
        policy = place.policy(dtype)
        assert policy.forward_mode == "shared", f"prompts are not shared in {dtype}, but scored {policy.forward_mode}"
        with torch.no_grad():
            own = policy.log_probs(sequences, width=place.shape.max_new)["logp"]
            whole = torch.stack([torch.cat(each) for each in zip(sequences.context, sequences.completion, strict=True)])
            logits = policy.model(input_ids=whole.to(place.device)).logits.float()[:, place.shape.prompt_len - 1 : -1]
        chosen = torch.stack(list(sequences.completion)).to(place.device)
        right = logits.log_softmax(-1).gather(-1, chosen[..., None])[..., 0]
        found[dtype] = near(float((own - right).abs().mean()), bound, f"mean difference in {dtype}")
    return found


def drawn(place: Place, dtype: str, count: int, temperature: float = 1.0) -> tuple[Any, Any, list[Any], list[Any]]:
    """(policy, engine, requests, their completions) of rollouts that the embedded engine draws."""
    from cohort.engine.base import Sampling
    from cohort.engine.native.engine import NativeEngine
    from cohort.types import Prompt, Request

    policy = place.policy(dtype)
    engine = NativeEngine(policy)
    _, sequences = place.groups()
    contexts = [tuple(context.tolist()) for context in sequences.context]
    requests = [Request(Prompt("", "", (), ""), each, seed, count) for seed, each in enumerate(contexts)]
    done = dict(engine.generate(requests, Sampling(stop_ids=frozenset({0}), temperature=temperature)))
    return policy, engine, requests, [done[i] for i in range(len(requests))]


def mismatch(policy: Any, requests: list[Any], done: list[Any]) -> float:
    """Mean difference (nats) between what the engine says of its tokens and what passes give."""
    import torch

    from cohort.policies.passes import log_probs

    actions = policy.actions_after([list(each.context.tokens) for each in requests], [each.tokens for each in done])
    width = max(len(each.tokens) for each in done)
    own = log_probs(policy, actions, width=width, temperature=1.0, micro_tokens=4096)["logp"]
    pairs = [(row[: len(each.logp)], torch.tensor(each.logp)) for row, each in zip(own, done, strict=True)]
    return float(torch.cat([(a - b).abs() for a, b in pairs]).mean())


def engine(place: Place) -> dict[str, Any]:
    """The embedded engine draws what transformers does, and passes give its tokens the probabilities that it names."""
    import torch

    policy, _, requests, done = drawn(place, "float32", place.shape.max_new, temperature=0.0)
    ids = torch.tensor([each.context.tokens for each in requests], device=place.device)
    with torch.no_grad():
        out = policy.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=place.shape.max_new
        )
    same = [out[i, ids.shape[1] :].tolist()[: len(each.tokens)] == each.tokens for i, each in enumerate(done)]
    share = sum(same) / len(same)
    # Two tokens may be as likely but for rounding.
    assert share >= 0.9, f"{share:.0%} of the greedy completions are those of transformers"
    found = {"same_as_transformers": share}
    for dtype, bound in (("float32", 1e-4), ("bfloat16", 0.05)):
        policy, _, requests, done = drawn(place, dtype, place.shape.max_new)
        found[f"mismatch_{dtype}"] = near(mismatch(policy, requests, done), bound, f"mean mismatch in {dtype}")
    return found


def graphs(place: Place) -> dict[str, Any]:
    policy, engine, requests, done = drawn(place, "bfloat16", place.shape.max_new)
    assert engine.graphs is not None
    assert engine.graphs.works, "steps could not be recorded, or replaying them gives other numbers"
    assert not engine.graphs.trials, "no step was replayed"
    return {"mismatch": near(mismatch(policy, requests, done), 0.05, "mean mismatch")}


def flash(place: Place) -> dict[str, Any]:
    policy, engine, requests, done = drawn(place, "bfloat16", place.shape.max_new)
    if engine.flash is None:
        raise NotHere("torch has no varlen_attn that reads a part of a sequence's keys (seqused_k)")
    assert engine.flash.works, "FlashAttention failed, or gives other numbers than plain products"
    assert engine.flash.tried, "FlashAttention was never called"
    return {"mismatch": near(mismatch(policy, requests, done), 0.05, "mean mismatch")}


# training --------------------------------------------------------------------------------------------------------------


def learning(place: Place) -> dict[str, Any]:
    result = place.train("learning", steps=24, lr=3e-3)
    rewards = [row["reward/mean"] for row in result.metrics]
    early, late = sum(rewards[:4]) / 4, sum(rewards[-4:]) / 4
    assert late > early + 0.1, f"the reward went from {early:.2f} to {late:.2f}"
    seconds = sorted(row["time/step"] for row in result.metrics)[len(rewards) // 2]
    return {"first": early, "last": late, "step_s": seconds, "peak_mb": peak(place)}


def kinds(place: Place) -> dict[str, Any]:
    """Methods that take other ways: a critic, coupled rollouts, generators of the device, a reference."""
    names = ("ppo", "copo", "stosignsgd", "lion", "grpo(kl_beta=0.1)", "gspo")
    return {name: place.train(f"kind {i}", name, steps=2).metrics[-1]["grad_norm"] for i, name in enumerate(names)}


def waits(place: Place) -> dict[str, Any]:
    """How often the host waits for the GPU in a step, as torch itself says."""
    import torch

    from cohort.training.assembly import assemble, make_trainer
    from cohort.training.build import prepare
    from cohort.training.config import make_config
    from cohort.training.loop import one_step
    from cohort.training.progress import Progress

    given = place.options("waits")
    del given["quiet"]
    setup = prepare(make_config({**given, "method": "grpo"}), log=lambda _: None)
    try:
        progress = Progress(states=setup.method.init(size=len(setup.prompts), steps=3))
        run = assemble(setup, make_trainer(setup, progress))
        one_step(run)
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            one_step(run)
        torch.cuda.set_sync_debug_mode("default")
    finally:
        setup.close()
    lines = Counter(f"{Path(w.filename).name}:{w.lineno}" for w in said if "synchroniz" in str(w.message))
    decoding = place.shape.max_new
    bound = 10 + decoding
    near(sum(lines.values()), bound, f"waits in a step with {decoding} steps of decoding ({lines.most_common(8)})")
    return {"waits": sum(lines.values()), "most": dict(lines.most_common(4))}


def compiled(place: Place) -> dict[str, Any]:
    plain = place.train("plain", steps=2, dtype="float32").metrics[0]
    made = place.train("compiled", steps=2, dtype="float32", compile=True).metrics[0]
    return {"difference": near(abs(plain["grad_norm"] / made["grad_norm"] - 1), 1e-3, "gradient norm, from uncompiled")}


def gradients(policy: Any, batch: Any, sequences: Any, micro_tokens: int) -> Any:
    """The gradient of a batch's loss as one vector in the processor's memory, through what survives memory running out."""
    import torch

    from cohort import registry
    from cohort.policies.passes import attempts
    from cohort.training.update import gradient

    method = registry.method("grpo(kl_beta=0.0)")
    bound = method.bind(method.init(size=1, steps=1))
    for attempt in attempts(policy):
        with attempt:
            gradient(policy, bound, batch, sequences, temperature=1.0, micro_tokens=micro_tokens, on_policy=True)
    found = torch.cat([p.grad.flatten().float().cpu() for p in policy.trainable()])
    for p in policy.trainable():
        p.grad = None
    return found


def activations(place: Place) -> dict[str, Any]:
    """Gradients of passes that keep less are the same, and less memory is taken."""
    import torch

    from cohort.training.memory import reset_peak

    batch, sequences = place.groups()
    policy, found, right = place.policy(), {}, None
    for how in ("keep", "checkpoint", "stream"):
        policy.use_activations(how)
        assert policy.activations == how, f"{how} became {policy.activations}"
        reset_peak(torch.device(place.device))
        made = gradients(policy, batch, sequences, 10**6)
        right = made if right is None else right
        near(float((made - right).norm() / right.norm()), 1e-4, f"gradient with {how}, relative")
        found[f"{how}_mb"] = peak(place)
    if place.cuda:
        assert found["checkpoint_mb"] < found["keep_mb"], f"checkpoints save no memory: {found}"
    return found


def memory(place: Place) -> dict[str, Any]:
    """Memory that runs out in a pass halves the micro-batches, with the same gradient."""
    import torch

    batch, sequences = place.groups()
    policy = place.policy()
    before = torch.cuda.memory_allocated()
    right = gradients(policy, batch, sequences, 10**6)
    most, whole = torch.cuda.max_memory_allocated(), torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    held = torch.cuda.memory_reserved()
    # Halves need a little more than half of what the passes took.
    torch.cuda.set_per_process_memory_fraction((held + 0.75 * (most - before)) / whole)
    made = gradients(policy, batch, sequences, 10**6)
    assert policy.halved, "memory did not run out: the part is of no use on this GPU"
    return {"difference": near(float((made - right).norm() / right.norm()), 1e-4, "gradient of halves, relative")}


def lora(place: Place) -> dict[str, Any]:
    """Adapters move, and the engine draws with them."""
    from safetensors.torch import load_file

    result = place.train("lora", lora=8, lr=1e-3)
    stored = load_file(result.model / "adapter_model.safetensors")
    assert any(bool(value.any()) for name, value in stored.items() if "lora_B" in name), "no adapter has moved"
    return {"mismatch": near(result.metrics[-1]["mismatch"], 0.05, "mean mismatch")}


def resume(place: Place) -> dict[str, Any]:
    """A run that is gone on with does as a whole one."""
    given = {"checkpoint.every": 2, "dtype": "auto"}
    whole = place.train("whole", steps=4, **given).metrics
    place.train("parts", steps=2, **given)
    parts = place.train("parts", steps=4, resume=True, **given).metrics
    assert [row["step"] for row in parts] == [1, 2, 3, 4]
    difference = abs(parts[2]["grad_norm"] / whole[2]["grad_norm"] - 1)
    return {"difference": near(difference, 0.05, "gradient norm of the third step, relative")}


# more processes --------------------------------------------------------------------------------------------------------


def workers(place: Place) -> dict[str, Any]:
    """Two processes draw, each with weights of its own."""
    result = place.train("workers", workers=2, lr=1e-3)
    return {"mismatch": near(result.metrics[-1]["mismatch"], 0.05, "mean mismatch")}


def _ranks(place: Place, shard: str) -> dict[str, Any]:
    """Two processes train as one does."""
    one = place.train(f"one {shard}", dtype="float32").metrics[0]
    given = place.options(f"two {shard}", dtype="float32", processes=2, shard=shard)
    data = place.folder / f"rows {shard}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in given.pop("data")))
    command = [sys.executable, "-m", "cohort", "train", "grpo", "--data", str(data)]
    for key in ("quiet", "device"):
        del given[key]
    device = [] if place.cuda else ["--device", "cpu"]
    reward = given.pop("reward")
    options = [part for key, value in given.items() for part in ("--set", f"{key}={value}")]
    command += ["--reward", *reward, *options, *device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-1000:]}{done.stderr[-2000:]}"
    two = json.loads(Path(given["out"], "metrics.jsonl").read_text().splitlines()[0])
    difference = abs(two["grad_norm"] / one["grad_norm"] - 1)
    return {"difference": near(difference, 1e-3, "gradient norm of two processes, relative")}


def ranks(place: Place) -> dict[str, Any]:
    return _ranks(place, "optimizer")


def shards(place: Place) -> dict[str, Any]:
    return _ranks(place, "parameters")


# vLLM ------------------------------------------------------------------------------------------------------------------


def _vllm() -> None:
    if importlib.util.find_spec("vllm") is None:
        raise NotHere("vllm is not installed")


def _drawn_by_vllm(place: Place, name: str, **changes: Any) -> dict[str, Any]:
    result = place.train(name, lr=1e-3, engine="vllm", **changes)
    return {"mismatch": near(max(row["mismatch"] for row in result.metrics), 0.05, "mean mismatch of a step")}


def vllm_memory(place: Place) -> dict[str, Any]:
    _vllm()
    return _drawn_by_vllm(place, "vllm memory", engine_memory=0.3, engine_weights="memory")


def vllm_folder(place: Place) -> dict[str, Any]:
    _vllm()
    return _drawn_by_vllm(place, "vllm folder", engine_memory=0.3, engine_weights="folder")


def vllm_lora(place: Place) -> dict[str, Any]:
    _vllm()
    return _drawn_by_vllm(place, "vllm lora", engine_memory=0.3, lora=8)


@contextmanager
def served(place: Place, *options: str) -> Iterator[str]:
    """The address of a vLLM server of the model; the process that runs the part ends it, too."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    switches = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_NO_USAGE_STATS": "1"}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(place.model)]
    command += [f"--port={port}", "--logprobs-mode=processed_logprobs", "--gpu-memory-utilization=0.3", *options]
    process = subprocess.Popen(command, env={**os.environ, **switches})
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def vllm_server(place: Place) -> dict[str, Any]:
    _vllm()
    began = time.monotonic()
    with served(place) as url:
        found = _drawn_by_vllm(place, "vllm server", engine_url=[url])
    return {**found, "seconds": time.monotonic() - began}


def vllm_adapter(place: Place) -> dict[str, Any]:
    _vllm()
    with served(place, "--enable-lora", "--max-lora-rank=8") as url:
        return _drawn_by_vllm(place, "vllm adapter", engine_url=[url], lora=8)


class Part(NamedTuple):
    """What a part shows, how it is run, the seconds that it may take, the GPUs that it needs, and whether a CPU will do."""

    shows: str
    run: Callable[[Place], dict[str, Any]]
    seconds: float = 60.0
    gpus: int = 1
    cpu: bool = True


PARTS = {
    "device": Part("the device, and the versions of what runs on it", device),
    "masters": Part("bfloat16 weights with float32 copies", masters),
    "scoring": Part("passes with shared prompts against transformers' logits", scoring),
    "engine": Part("the embedded engine against transformers and against passes", engine),
    "graphs": Part("decoding steps as CUDA graphs", graphs, cpu=False),
    "flash": Part("FlashAttention in decoding steps", flash, cpu=False),
    "learning": Part("a short run that learns, in bfloat16 on a GPU", learning, 120.0),
    "kinds": Part("a critic, coupled rollouts, other optimizers, a reference", kinds, 120.0),
    "waits": Part("how often the host waits in a step", waits, cpu=False),
    "activations": Part("checkpointed and streamed activations", activations),
    "memory": Part("memory that runs out", memory, cpu=False),
    "lora": Part("adapters", lora),
    "resume": Part("a checkpoint that a run goes on from", resume, 90.0),
    "workers": Part("two processes that draw", workers, 120.0),
    "compiled": Part("compiled layers", compiled, 240.0),
    "ranks": Part("two processes that train (--processes 2)", ranks, 120.0, gpus=2),
    "shards": Part("two processes that hold the weights in parts (--shard parameters)", shards, 120.0, gpus=2),
    "vllm-memory": Part("vLLM in this process, weights through memory", vllm_memory, 180.0, cpu=False),
    "vllm-folder": Part("vLLM in this process, weights through files", vllm_folder, 180.0, cpu=False),
    "vllm-lora": Part("vLLM in this process, adapters", vllm_lora, 180.0, cpu=False),
    "vllm-server": Part("a vLLM server, whole weights", vllm_server, 240.0, cpu=False),
    "vllm-adapter": Part("a vLLM server, adapters", vllm_adapter, 240.0, cpu=False),
}
