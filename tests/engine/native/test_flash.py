"""Decoding through torch's attention for sequences of unequal length, which a GPU alone has: here by a plain stand-in that
takes what it documents, and by the shapes that it declares."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention.varlen import varlen_attn

from cohort.engine.base import Sampling
from cohort.engine.native import flash, graphs
from cohort.engine.native.engine import NativeEngine
from cohort.engine.native.flash import Flash
from cohort.engine.native.graphs import Graphs
from cohort.engine.native.grid import Grid
from cohort.policies.causal_lm import CausalLM
from tests.engine.native.test_graphs import Recorder
from tests.engine.native.test_shared import KINDS, orders
from tests.helpers import tiny_policy

# Of these the kernels know the attention: no soft cap, and no window narrower than the sequences.
WHOLE = ("llama", "qwen2", "qwen3", "gemma", "phi3", "gpt2")


class Plain:
    """`varlen_attn` in a few plain lines, as its documentation has it."""

    def __init__(self, factor: float = 1.0) -> None:
        self.calls, self.factor = 0, factor

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor,
        max_q: int,
        max_k: int,
        *,
        return_aux: Any,
        scale: float,
        enable_gqa: bool,
        seqused_k: Tensor,
    ) -> tuple[Tensor, Tensor]:
        self.calls += 1
        assert return_aux == "mass"
        assert enable_gqa
        assert query.shape[1] % key.shape[1] == 0
        assert {x.dtype for x in (cu_seq_q, cu_seq_k, seqused_k)} == {torch.int32}
        assert all(x.stride(-1) == 1 for x in (query, key, value))
        count = len(seqused_k)
        assert len(cu_seq_q) == len(cu_seq_k) == count + 1
        assert int(cu_seq_q[-1]) == len(query)
        assert int(cu_seq_k[-1]) <= len(key) == len(value)
        assert int(cu_seq_q.diff().max()) <= max_q
        assert int(cu_seq_k.diff().max()) <= max_k
        assert bool((seqused_k <= cu_seq_k.diff()).all())
        out, mass = torch.empty_like(query), query.new_empty(query.shape[1], len(query))
        for i in range(count):
            rows = slice(int(cu_seq_q[i]), int(cu_seq_q[i + 1]))
            keys = slice(int(cu_seq_k[i]), int(cu_seq_k[i]) + int(seqused_k[i]))
            repeats = query.shape[1] // key.shape[1]
            k, v = (x[keys].repeat_interleave(repeats, 1) for x in (key, value))
            scores = torch.einsum("qhd,khd->hqk", query[rows], k) * scale
            mass[:, rows] = scores.logsumexp(-1)
            out[rows] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)
        return out * self.factor, mass


def engine_of(policy: CausalLM, slots: int, attend: Any) -> NativeEngine:
    engine = NativeEngine(policy, slots=slots)
    assert engine.flash is None  # not on a CPU
    engine.graphs, engine.flash = Graphs(Recorder()), Flash((attend, "mass"))
    vars(engine)["kind"] = None
    return engine


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slots", [3, 64])
def test_the_same_is_drawn(kind: str, slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "PATIENCE", 1)
    policy = tiny_policy(kind)
    requests, sampling = orders(policy), Sampling(temperature=0.8, top_p=0.95)
    right = dict(NativeEngine(policy, slots=slots).generate(requests, sampling))
    attend = Plain()
    engine = engine_of(policy, slots, attend)
    got = dict(engine.generate(requests, sampling))
    assert engine.flash is not None
    assert engine.flash.works
    assert engine.flash.tried is (kind in WHOLE) is (attend.calls > 0)
    assert sorted(got) == sorted(right)
    for place, completion in right.items():
        assert got[place].tokens == completion.tokens
        assert got[place].logp == pytest.approx(completion.logp, abs=2e-5)


def failing(*_: Any, **__: Any) -> Any:
    raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.\nand more")


@pytest.mark.parametrize(("attend", "why"), [(Plain(1.2), "it gives other numbers"), (failing, "only supports Ampere")])
def test_where_it_fails_or_gives_other_numbers_products_are_used(attend: Any, why: str) -> None:
    policy = tiny_policy("qwen3")
    requests = orders(policy)
    right = {i: c.tokens for i, c in NativeEngine(policy).generate(requests, Sampling())}
    engine = engine_of(policy, 64, attend)
    with pytest.warns(RuntimeWarning, match=f"goes on without FlashAttention: .*{why}"):
        assert {i: c.tokens for i, c in engine.generate(requests, Sampling())} == right
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {i: c.tokens for i, c in engine.generate(requests, Sampling())} == right


def test_memory_that_runs_out_in_it_is_that_of_sampling() -> None:
    def out(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA out of memory.")

    tried = Flash((out, "mass"))
    with pytest.raises(RuntimeError, match="out of memory"):
        tried(lambda: tried.attend(), lambda: torch.zeros(1))
    assert tried.works


def test_torch_takes_what_it_is_given_and_declares_the_shapes_that_are_read() -> None:
    """On tensors without numbers."""
    found = flash.varlen()
    assert found is not None
    rows, heads, repeats, width = 7, 2, 3, 16
    home = torch.tensor([0, 1, 0, 2, 2, 1, 0])
    grid, meet = Grid.of(home, 3, heads), Flash(found)
    masses: list[torch.Size] = []
    attend = meet.attend

    def seen(*args: Any, **kwargs: Any) -> Any:
        inspect.signature(varlen_attn).bind(*args, **kwargs)
        out, mass = attend(*args, **kwargs)
        masses.append(mass.shape)
        return out, mass

    meet.attend = seen  # type: ignore[assignment]
    with FakeTensorMode(allow_non_fake_inputs=True):

        def blank(*shape: int) -> Tensor:
            return torch.empty(*shape, dtype=torch.bfloat16)

        def cache(count: int, room: int) -> tuple[Tensor, Tensor]:
            return blank(count, room, heads, width).transpose(1, 2), blank(count, room, heads, width).transpose(1, 2)

        q, lengths = blank(rows, heads, repeats, width), torch.tensor([40, 9, 11])
        out = meet.step(q, cache(rows, 64), cache(3, 40), grid, home, lengths, 0.25)
    assert out.shape == (rows, heads, repeats, width)
    assert out.dtype == torch.bfloat16
    assert masses == [torch.Size([heads * repeats, rows])] * 2


def test_it_is_tried_on_gpus_in_half_precision_alone() -> None:
    gpu = torch.device("cuda")
    assert isinstance(Flash.on(gpu, torch.bfloat16), Flash)
    assert Flash.on(gpu, torch.float32) is Flash.on(torch.device("cpu"), torch.bfloat16) is None
    meet = Flash((Plain(), "mass"))
    assert meet.serves(64, None, False)
    assert not any((meet.serves(64, 30.0, False), meet.serves(64, None, True), meet.serves(20, None, False)))
    assert not meet.serves(512, None, False)


def test_the_grid_of_rows() -> None:
    grid = Grid.of(torch.tensor([1, 0, 1, 1]), 3, 2)
    assert grid.order.tolist() == [1, 0, 2, 3]
    assert grid.place.tolist() == [1, 0, 2, 3]
    assert grid.starts.tolist() == [0, 1, 4, 4]
    assert grid.rows[1].tolist() == [0, 2, 3]
    assert grid.rows[0, 0] == 1
