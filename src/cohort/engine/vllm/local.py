"""vLLM in the trainer's process (its engine core runs in a child process, on the same GPU).

Through `LLMEngine.add_request` and `step`, since completions should be had as they finish; weights by the calls of `LLM`
that vLLM documents for training (pages training/weight_transfer, training/layerwise, features/lora).
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from cohort.engine.vllm.engine import Answer, Order
from cohort.errors import EngineError, UsageError
from cohort.lifeline import Lifeline
from cohort.types.policy import Policy

# Ranks that vLLM allocates adapters for.
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def import_vllm(name: str = "vllm") -> Any:
    """A module of vLLM.

    Raises:
        UsageError: it is not installed, or too old to have it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"--engine vllm needs vLLM here ({error}): pip install 'cohort-rl[vllm]', or start a server elsewhere and "
            "name it with --engine-url"
        ) from error


class Local:
    """A Backend: vLLM in this process.

    Args:
        policy: the model; vLLM loads the one it was loaded from, and is sent its weights before the first draw.
        memory: share of the GPU's memory for vLLM's weights and cache.
        slots: most rollouts decoded at once.
        masked: report which tokens truncation kept.
        shared: weights will come through CUDA IPC.
        rank: of the adapters that will be drawn with; 0 for none.
    """

    place = "vLLM"

    def __init__(
        self,
        policy: Policy,
        *,
        memory: float,
        slots: int,
        masked: bool = False,
        shared: bool = False,
        rank: int = 0,
        seed: int = 0,
        trust_remote_code: bool = False,
    ) -> None:
        self._vllm = import_vllm()
        before = set(multiprocessing.active_children())
        self.masked = masked
        self.lost: Callable[[], None] = lambda: None
        options: dict[str, Any] = {}
        if masked:
            options["return_sampling_mask"] = True
        if rank:
            if rank > RANKS[-1]:
                raise UsageError(f"--lora {rank}: vLLM takes adapters of a rank up to {RANKS[-1]}")
            options |= {"enable_lora": True, "max_lora_rank": next(r for r in RANKS if r >= rank)}
        if shared:
            # The handles of the weights reach the engine core pickled; both ends are this very run.
            os.environ.setdefault("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")
            options["weight_transfer_config"] = import_vllm("vllm.config").WeightTransferConfig(backend="ipc")
        try:
            self.llm = self._vllm.LLM(
                model=policy.name,
                dtype=str(policy.dtype).removeprefix("torch."),
                seed=seed,
                max_num_seqs=slots,
                gpu_memory_utilization=memory,
                max_model_len=-1,
                enable_prefix_caching=True,
                logprobs_mode="processed_logprobs",
                generation_config="vllm",
                trust_remote_code=trust_remote_code,
                **options,
            )
        except (TypeError, ValueError, RuntimeError, OSError) as error:
            version = getattr(self._vllm, "__version__", "unknown")
            raise UsageError(
                f"vLLM {version} cannot be started with the model {policy.name}: {str(error).strip() or error!r}. "
                "engine_memory is its share of the GPU's memory, of which the trainer needs the rest"
            ) from error
        # A core that outlived this process would hold the GPU's memory.
        cores = [child.pid for child in set(multiprocessing.active_children()) - before if child.pid is not None]
        self._lifeline = Lifeline(*cores) if cores else None
        self.longest: int | None = self.llm.model_config.max_model_len
        self._adapter: Any = None
        self._numbers = itertools.count(1)
        self._ids = itertools.count()

    def close(self) -> None:
        # LLM has no call for it; its engine core ends with the last reference.
        self.__dict__.pop("llm", None)
        if self._lifeline is not None:
            self._lifeline.close()
            self._lifeline = None

    def draws(self) -> LocalDraws:
        """See Backend.draws."""
        return LocalDraws(self)

    def name_request(self) -> str:
        """A name that no request had yet."""
        return f"cohort-{next(self._ids)}"

    @property
    def adapter(self) -> Any:
        """What is drawn with beside the model's own weights; None for nothing."""
        return self._adapter

    # weights -------------------------------------------------------------------------------------------------------

    def load(self, folder: str) -> None:
        """See Backend.load."""
        try:
            self.llm.collective_rpc("reload_weights", kwargs={"weights_path": folder})
        except Exception as error:
            raise EngineError(f"vLLM could not take over the weights in {folder}: {error}") from error
        self.forget()

    def forget(self) -> None:
        """See Backend.forget."""
        if self.llm.reset_prefix_cache() is False:
            raise EngineError(
                "vLLM kept its prefix cache, which belongs to the weights before: requests are still running"
            )

    def adopt(self, name: str, folder: str, replaces: str | None) -> None:
        """See Backend.adopt."""
        self._adapter = import_vllm("vllm.lora.request").LoRARequest(name, next(self._numbers), folder)

    # what vLLM's trainer side calls (its protocol VLLMWeightSyncClient) ---------------------------------------------

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self.llm.init_weight_transfer_engine({"init_info": init_info})

    def start_weight_update(self) -> None:
        self.llm.start_weight_update()

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self.llm.update_weights({"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self.llm.finish_weight_update()

    def shutdown_weight_transfer_engine(self) -> None:
        self.llm.shutdown_weight_transfer_engine()


class LocalDraws:
    """See `cohort.engine.vllm.engine.Draws`: requests of vLLM's engine, a step at a time."""

    def __init__(self, backend: Local) -> None:
        self.backend, self.engine = backend, backend.llm.llm_engine
        self.waiting: dict[str, int] = {}
        self.done: deque[tuple[int, Answer]] = deque()
        self.count = 0

    def submit(self, order: Order) -> int:
        """See Draws."""
        final = import_vllm("vllm.sampling_params").RequestOutputKind.FINAL_ONLY
        prompt = import_vllm("vllm.inputs").tokens_input(order.tokens)
        name, number = self.backend.name_request(), self.count
        with _failing():
            params = import_vllm().SamplingParams(**order.params, output_kind=final, detokenize="stop" in order.params)
            self.engine.add_request(name, prompt, params, lora_request=self.backend.adapter)
        self.waiting[name], self.count = number, number + 1
        return number

    def next(self) -> tuple[int, Answer]:
        """See Draws."""
        found = self.next_unless(lambda: False)
        assert found is not None
        return found

    def next_unless(self, stop: Callable[[], bool]) -> tuple[int, Answer] | None:
        """See Draws."""
        while not self.done:
            if stop():
                return None
            with _failing():
                if not self.engine.has_unfinished_requests():
                    raise EngineError(f"vLLM dropped {len(self.waiting)} of {self.count} requests")
                for output in self.engine.step():
                    if output.finished and output.request_id in self.waiting:
                        self.done.append((self.waiting.pop(output.request_id), _answer(output.outputs[0])))
        return self.done.popleft()

    def close(self) -> None:
        """See Draws."""
        if self.waiting and hasattr(self.backend, "llm"):
            self.engine.abort_request(list(self.waiting))
        self.waiting = {}


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise error if isinstance(error, EngineError) else EngineError(f"vLLM failed while drawing: {error}") from error


def _answer(output: Any) -> Answer:
    """The answer in vLLM's CompletionOutput."""
    tokens = list(output.token_ids)
    logp = [position[token].logprob for token, position in zip(tokens, output.logprobs or [], strict=False)]
    mask = getattr(output, "sampling_mask", None)
    support = None if mask is None else [list(ids) for ids in mask.token_ids]
    return Answer(tokens, logp, str(output.finish_reason), output.stop_reason, support)
