"""Steps of a fixed shape draw what others draw, and between two recordings nothing of them moves."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from cohort.engine.base import Sampling
from cohort.engine.native import budget, graphs, shared
from cohort.engine.native.attending import decoding
from cohort.engine.native.engine import NativeEngine
from cohort.engine.native.flash import Flash, varlen
from cohort.engine.native.graphs import Graphs, Step
from cohort.engine.native.plain import PlainStep
from cohort.policies.causal_lm import CausalLM
from tests.engine.native.test_shared import KINDS, LIKE_LLAMA, orders
from tests.helpers import prompt_of, request_of, tiny_policy


def decoder_of(step: Step) -> shared.SharedDecoder:
    """Whose step it is."""
    found: shared.SharedDecoder = step.__self__  # type: ignore[attr-defined]
    return found


def state_of(decoder: shared.SharedDecoder) -> list[object]:
    """What a recorded step keeps: where its tensors lie, their shapes, and plain numbers."""
    assert decoder.grid is not None
    tensors = [decoder.last, decoder.count, decoder.home, decoder.prefixes.lengths, decoder.everyone, *decoder.grid]
    tensors += [tensor for pair in (*decoder.own, *decoder.prefixes.stacked) for tensor in pair]
    return [decoder.longest, decoder.level, *((t.data_ptr(), t.shape, t.stride()) for t in tensors)]


class Recorder:
    """Stands in for CUDA graphs: a replay is a call that writes its result where the first one did, and fails where
    something has moved."""

    def __init__(self) -> None:
        self.recorded, self.replayed = 0, 0

    def __call__(self, step: Step) -> Step:
        self.recorded += 1
        decoder = decoder_of(step)
        held, out = state_of(decoder), step().clone()

        def replay() -> Tensor:
            self.replayed += 1
            assert state_of(decoder) == held
            return out.copy_(step())

        return replay


def engine_of(
    policy: CausalLM, slots: int, record: Callable[[Step], Step], kind: shared.Kind | None = None
) -> NativeEngine:
    engine = NativeEngine(policy, slots=slots)
    assert engine.graphs is None  # not on a CPU
    engine.graphs = Graphs(record)
    vars(engine)["kind"] = kind
    return engine


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("slots", [3, 64])
def test_replayed_steps_draw_the_same(kind: str, slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "PATIENCE", 1)
    policy = tiny_policy(kind)
    requests, sampling = orders(policy), Sampling(temperature=0.8, top_p=0.95)
    own = dict(NativeEngine(policy, slots=slots).generate(requests, sampling))
    for way in (None, PlainStep) if kind in LIKE_LLAMA else (None,):
        recorder = Recorder()
        got = dict(engine_of(policy, slots, recorder, way).generate(requests, sampling))
        assert recorder.replayed > recorder.recorded > 0
        assert sorted(got) == sorted(own)
        for place, completion in own.items():
            assert got[place].tokens == completion.tokens
            assert got[place].logp == pytest.approx(completion.logp, abs=2e-5)


def test_rows_that_ended_stay_until_half_have_and_room_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = tiny_policy("qwen3")
    prompt = prompt_of(policy, "12+34=")
    requests = [request_of(prompt, seed=i, count=10 * (i + 1)) for i in range(8)]
    monkeypatch.setattr(budget, "BLOCK", 8)
    monkeypatch.setattr(shared, "FIRST_ROOM", 16)
    seen: set[tuple[int, int]] = set()
    forward = shared.SharedDecoder._forward

    def watched(self: shared.SharedDecoder) -> Tensor:
        out = forward(self)
        seen.add((len(self.owner), self.own[0][0].shape[2]))
        return out

    monkeypatch.setattr(shared.SharedDecoder, "_forward", watched)
    engine = engine_of(policy, 64, Recorder())
    got = dict(engine.generate(requests, Sampling(stop_ids=frozenset())))
    assert [len(got[i].tokens) for i in range(8)] == [10 * (i + 1) for i in range(8)]
    assert {rows for rows, _ in seen} == {8, 4, 2, 1}
    # 16 tokens, then twice as many whenever they are used up; never more than the longest rollout can have.
    assert sorted({room for _, room in seen}) == [16, 32, 64, 80]


def test_memory_for_own_tokens_stays_within_what_the_bound_counts() -> None:
    policy = tiny_policy("qwen3")
    request = request_of(prompt_of(policy, "1+1="), count=70)
    decoder = shared.SharedDecoder(
        policy, [request], Sampling(stop_ids=frozenset()), slots=1, graphs=Graphs(Recorder())
    )
    with torch.inference_mode():
        list(decoder.run())
    assert decoder.own[0][0].shape[2] == 128


def without_numbers(kind: str, *, level: bool, flash: Flash | None = None) -> torch.Size:
    """The shape of a step's logits, from tensors that hold no numbers: reading one would fail, as it would on a recording."""
    policy = tiny_policy(kind)
    decoder = shared.SharedDecoder(
        policy, orders(policy), Sampling(stop_ids=frozenset()), slots=64, graphs=Graphs(), flash=flash
    )
    with torch.inference_mode(), decoding(decoder):
        decoder._admit(64)
        decoder._arrange()
        decoder._grow()
        decoder.level = level
        with FakeTensorMode(allow_non_fake_inputs=True):
            return decoder._logits().shape


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_fixed_shape_reads_no_number_from_the_device(kind: str) -> None:
    assert without_numbers(kind, level=False)[0] == 16


def test_nor_does_one_through_flash_attention() -> None:
    found = varlen()
    assert found is not None
    flash = Flash(found)
    flash.tried = True
    assert without_numbers("qwen3", level=False, flash=flash)[0] == 16


def test_other_steps_do() -> None:
    with pytest.raises(DataDependentOutputException):
        without_numbers("qwen3", level=True)


def test_shapes_that_soon_pass_are_not_recorded() -> None:
    recorder = Recorder()
    policy = tiny_policy("qwen3")
    requests = [request_of(prompt_of(policy, "1+1="), seed=i, count=graphs.PATIENCE + 1) for i in range(4)]
    list(engine_of(policy, 64, recorder).generate(requests, Sampling(stop_ids=frozenset())))
    assert recorder.recorded == 0


@pytest.mark.parametrize(
    ("fails", "says"),
    [
        (RuntimeError("operation not permitted when stream is capturing\nmore"), "operation not permitted when stream"),
        (None, "replaying gives other numbers"),
    ],
)
def test_what_cannot_be_recorded_is_called(fails: Exception | None, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "PATIENCE", 2)

    def record(step: Step) -> Step:
        if fails is not None:
            raise fails
        once = step().clone()
        return lambda: once  # as if what it reads had moved

    policy = tiny_policy("qwen3")
    requests, sampling = orders(policy), Sampling()
    own = {i: c.tokens for i, c in NativeEngine(policy).generate(requests, sampling)}
    engine = engine_of(policy, 64, record)
    with pytest.warns(RuntimeWarning, match=says):
        assert {i: c.tokens for i, c in engine.generate(requests, sampling)} == own
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {i: c.tokens for i, c in engine.generate(requests, sampling)} == own


def test_memory_that_runs_out_while_recording_is_that_of_sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "PATIENCE", 2)

    def record(step: Step) -> Step:
        raise torch.OutOfMemoryError("CUDA out of memory")

    policy = tiny_policy("qwen3")
    engine = engine_of(policy, 4, record)
    with pytest.warns(RuntimeWarning, match="going on with 2 rollouts at once"), pytest.raises(torch.OutOfMemoryError):
        list(engine.generate(orders(policy), Sampling(stop_ids=frozenset())))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_steps_are_recorded_and_draw_the_same() -> None:
    policy = tiny_policy("qwen3")
    policy.base.to("cuda")
    requests, sampling = orders(policy), Sampling(temperature=0.8)
    engine = NativeEngine(policy)
    assert engine.graphs is not None
    got = {i: c.tokens for i, c in engine.generate(requests, sampling)}
    assert engine.graphs.works
    assert not engine.graphs.trials
    engine.graphs = None
    assert {i: c.tokens for i, c in engine.generate(requests, sampling)} == got
