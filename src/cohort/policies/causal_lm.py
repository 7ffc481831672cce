"""Policies that are causal language models of transformers."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cohort.devices import tensor_on, to_device
from cohort.policies.activations import Compiled, checkpointed, layers_of, return_freed_memory
from cohort.policies.attention import packed
from cohort.policies.critic import Critic
from cohort.policies.diverging import diverged, first_not_finite
from cohort.policies.head import head_of, token_statistics
from cohort.policies.loading import check_finite, load_model, save_as, stored_dtype
from cohort.policies.packing import Packed, pack, packs, pays
from cohort.policies.renderer import PromptFormat, TextRenderer
from cohort.policies.roles import Roles, has_adapter
from cohort.policies.sequences import Sequences
from cohort.policies.soft import mixture_of
from cohort.policies.stream import serves, streamed
from cohort.quiet import quiet_libraries
from cohort.types import Context, Rollout
from cohort.types.policy import Actions
from cohort.types.support import Flat, Support

# Tokens of a forward pass with gradient (see `CausalLM.pass_tokens`), and numbers of a hidden state for all of them.
SMALL_PASS, MIDDLE_PASS, LARGE_PASS, PASS_NUMBERS = 1024, 2048, 16384, 2**19


class CausalLM:
    """A Policy (see `cohort.types.policy`) that is a causal language model with its tokenizer.

    Attributes:
        renderer: its tokenizer and chat template.
        roles: the models in other roles, such as its reference.
        activations: what a pass with gradient keeps: "keep", "checkpoint" or "stream" (see `use_activations`).
        compiled: the compiled layers that passes go through, if they do (see compiling.py).
        halved: True if micro-batches are cut in half, since memory ran out.
        pass_limit: most tokens of a micro-batch, as `micro_batches` was last asked for; a rollout that has more, in several
            pieces, takes several passes, and each is made again for the backward pass. None: one pass whatever its length.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        bos: bool = False,
        name: str = "",
        prompt_format: PromptFormat = "auto",
        special_tokens: str | Sequence[str] = "content",
    ) -> None:
        self.name = name
        self.roles = Roles(model.eval(), critic=lambda kind: Critic.beside(self.model, kind))
        self.forwards = 0
        self.activations = "keep"
        self.compiled: Compiled | None = None
        self.halved = False
        self.pass_limit: int | None = None
        self.came_as: torch.dtype | None = None
        config = model.config
        ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None) or config.eos_token_id
        self.renderer = TextRenderer(
            tokenizer,
            rows=0 if tokenizer is None else self._rows,
            name=name,
            bos=bos,
            prompt_format=prompt_format,
            special_tokens=special_tokens,
            ends=[i for i in (ends if isinstance(ends, list) else [ends]) if i is not None],
            context_length=getattr(config, "max_position_embeddings", None),
        )
        self.keeps_logits = "logits_to_keep" in inspect.signature(self.base.forward).parameters

    @property
    def model(self) -> Any:
        """The transformers model, or its peft wrapper."""
        return self.roles.models["policy"]

    @property
    def _rows(self) -> int:
        """Token ids that can be read and drawn are 0 to this - 1."""
        return min(self.vocabulary, int(self.base.get_input_embeddings().weight.shape[0]))

    # loading and saving --------------------------------------------------------------------------------------------

    @classmethod
    def load(
        cls,
        name: str,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        trust_remote_code: bool = False,
        bos: bool = False,
        prompt_format: PromptFormat = "auto",
        special_tokens: str | Sequence[str] = "content",
    ) -> CausalLM:
        """A model folder or hub id, safetensors only.

        Raises:
            UsageError: no such model, no tokenizer, weights in another format than safetensors or not those that the
                model's configuration asks for, or tokens that it has no row for.
        """
        model, tokenizer = load_model(name, dtype=dtype, trust_remote_code=trust_remote_code)
        policy = cls(
            model.to(device), tokenizer, bos=bos, name=name, prompt_format=prompt_format, special_tokens=special_tokens
        )
        check_finite(policy.model, f"model '{name}'")
        policy.renderer.check_tokens()
        policy.came_as = stored_dtype(name)
        return policy

    def save(self, folder: Path, *, dtype: torch.dtype | None = None) -> None:
        """Write what `from_pretrained` loads: model (or adapter), generation configuration and tokenizer.

        Args:
            dtype: of a model's weights in the file; None: as they are.
        """
        quiet_libraries()
        if dtype in (None, self.dtype) or self.is_adapter:
            self.model.save_pretrained(folder)
        else:
            assert dtype is not None
            save_as(self.model, folder, dtype)
        if self.renderer.tokenizer is not None:
            self.renderer.tokenizer.save_pretrained(folder)

    def export(self, folder: Path) -> None:
        """`save` for others to use: a model's weights in the type that they came in, whatever they were trained in."""
        self.save(folder, dtype=self.came_as)

    def load_weights(self, folder: Path) -> None:
        """Take over the weights that `save` wrote."""
        if self.is_adapter:
            from peft import load_peft_weights, set_peft_model_state_dict

            set_peft_model_state_dict(self.model, load_peft_weights(str(folder), device="cpu"))
        else:
            stored = type(self.model).from_pretrained(folder, dtype=self.dtype, use_safetensors=True)
            self.model.load_state_dict(stored.state_dict())

    def add_lora(self, rank: int, *, alpha: float | None = None, targets: str | Sequence[str] = "all-linear") -> None:
        """Freeze the model and train low-rank adapters on its linear layers."""
        from peft import LoraConfig, get_peft_model

        # An adapter says where its base is, and may be read from another folder than it was made in.
        base = getattr(self.model, "name_or_path", "")
        if base and Path(base).is_dir():
            self.model.name_or_path = str(Path(base).absolute())
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha if alpha is not None else 2 * rank,
            target_modules=targets if isinstance(targets, str) else list(targets),
            task_type="CAUSAL_LM",
        )
        self.roles.models["policy"] = get_peft_model(self.model, config).eval()

    @property
    def is_adapter(self) -> bool:
        """True if low-rank adapters are trained rather than the model itself."""
        return has_adapter(self.model)

    @property
    def base(self) -> Any:
        """The transformers model, without a wrapper."""
        return self.model.get_base_model() if self.is_adapter else self.model

    @property
    def device(self) -> torch.device:
        weight: Tensor = next(self.model.parameters())
        return weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        weight: Tensor = next(self.model.parameters())
        return weight.dtype

    def trainable(self) -> list[torch.nn.Parameter]:
        """Parameters that are trained."""
        return [p for p in self.model.parameters() if p.requires_grad]

    # log-probabilities -------------------------------------------------------------------------------------------

    def actions(self, rollouts: Sequence[Rollout]) -> Sequences:
        """The tokens of rollouts, in their contexts, over what they were drawn over."""
        return self.actions_after(
            [r.context for r in rollouts], [r.tokens for r in rollouts], [r.support for r in rollouts]
        )

    def actions_after(
        self, contexts: Sequence[Sequence[int]], tokens: Sequence[Sequence[int]], support: Sequence[Support | None] = ()
    ) -> Sequences:
        """Tokens in contexts, n of each; `support` as of `Sequences`. A `Context` may have further ones (`rebuilt`)."""
        rebuilt = tuple(
            tuple((place, _ids(later)) for place, later in context.rebuilt) if isinstance(context, Context) else ()
            for context in contexts
        )
        return Sequences(
            tuple(map(_ids, contexts)), tuple(map(_ids, tokens)), tuple(support), rebuilt if any(rebuilt) else ()
        )

    def log_probs(
        self,
        actions: Actions,
        *,
        width: int,
        temperature: float = 1.0,
        want: frozenset[str] = frozenset({"logp"}),
        role: str = "policy",
    ) -> dict[str, Tensor]:
        """What a model gives to the completion tokens, in one forward pass with the gradient that is on (see `pass_limit`).

        Sequences with the same context share it where the model allows (see `forward_mode`).

        Args:
            actions: n of them.
            width: T, the number of columns of the result; tokens beyond a completion are 0.
            temperature: of the distribution, as when sampling. Tokens that were drawn are scored over what they were
                drawn over (`Sequences.support`), and so are their entropies and logits.
            want: "logp", "entropy" [n, T]; "values" [n, T] of the critic, before each token; "logits" [n, T, V], divided
                by the temperature; "hidden" [n, T, d], the last hidden state, from which each token was predicted.
            role: of the model: "policy", or another that was made (see `roles`).

        Returns:
            name -> tensor in float32 (float64 for a float64 model), on the policy's device, in the order of the names.
        """
        assert isinstance(actions, Sequences)
        score = functools.partial(self._scored, width=width, temperature=temperature, want=want, role=role)
        parts = actions.split(self.pass_limit) if self.pass_limit and len(actions) == 1 else [actions]
        if len(parts) == 1:
            return score(actions)
        if torch.is_grad_enabled():
            score = functools.partial(checkpoint, score, use_reentrant=False, preserve_rng_state=False)
        found = [score(part) for part in parts]
        return {name: torch.stack([each[name] for each in found]).sum(0) for name in sorted(want)}

    def _scored(
        self, actions: Sequences, *, width: int, temperature: float, want: frozenset[str], role: str
    ) -> dict[str, Tensor]:
        """`log_probs` in one pass."""
        row = pack(actions, self.device)
        flat: dict[str, Tensor] = {}
        critic = self._critic(role) if "values" in want else None
        own = critic is not None and critic.backbone is None
        if want - {"values"} or own:
            with self.roles.playing("policy" if role == "target" else role) as scored:
                hidden, logits = self._forward(scored, row, actions, states=bool(want & {"hidden", "values"}))
                head = head_of(scored)
            support = Flat.of(actions.support, row.row, row.column)
            flat = token_statistics(
                head, hidden, logits, row.tokens, temperature=temperature, want=want, support=support
            )
            if hidden is not None and want & {"hidden", "values"}:
                flat["hidden"] = hidden if hidden.dtype == torch.float64 else hidden.float()
                if critic is not None and own:
                    flat["values"] = critic(hidden)
        if critic is not None and not own:
            hidden, _ = self._forward(critic.backbone, row, actions, states=True)
            assert hidden is not None
            flat["values"] = critic(hidden)
        # Processes that do something together with each result must go through them in one order; a set's is its process's own.
        return {name: row.padded(flat[name], len(actions), width) for name in sorted(want)}

    def _critic(self, role: str) -> Critic:
        """The value function whose values a role gives: the target's own, or the one that is trained."""
        with self.roles.playing("target" if role == "target" else "critic") as critic:
            assert isinstance(critic, Critic)
            return critic

    def _forward(
        self, scored: Any, row: Packed, sequences: Sequences, *, states: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Hidden states [M, d] from which the completion tokens are predicted, or, where `forward_mode` is "whole", logits
        [M, V] (and the hidden states if `states`)."""
        self.forwards += 1
        mode = self.forward_mode if scored is not self.roles.models.get("teacher") else self._teacher_mode
        hidden = getattr(self.base.config, "hidden_size", 0)
        # Chunks are cut from packed rows, and what is compiled is compiled for them.
        bound = self.activations == "stream" or self.compiled is not None
        if mode == "shared" and not bound and not pays(sequences, hidden):
            mode = "padded"
        with contextlib.nullcontext() if self.compiled is None else self.compiled.layers(base_of(scored)):
            return forward(scored, row, sequences, mode, states=states, activations=self.activations)

    def use_activations(self, how: str, log: Callable[[str], None] = lambda _: None) -> None:
        """Choose what passes with gradient keep for the backward pass: "keep" everything; "checkpoint", the input of each
        layer; "stream", the same, and a layer is made again in chunks of the row. The gradient is the same.

        Where the model allows less, that is said and done: `stream` needs a model whose `forward_mode` is "shared", and whose
        layers mix positions in attention alone; `checkpoint` needs layers that transformers can checkpoint.
        """
        if how == "stream" and not serves(self):
            log(
                f"activations: the layers of {self.name or 'the model'} cannot be computed in chunks; checkpointing instead"
            )
            how = "checkpoint"
        if how == "checkpoint" and not layers_of(self.base):
            log(f"activations: {self.name or 'the model'} has no layers that transformers can checkpoint; all are kept")
            how = "keep"
        if how != "keep" and self.device.type == "cpu":
            return_freed_memory()
        self.activations = how

    @functools.cached_property
    def forward_mode(self) -> str:
        """How sequences can be scored, found by trying on a few tokens: "shared", a shared context only once (where that
        pays); "padded", each sequence by itself, the output layer apart; "whole", the model's own logits."""
        return find_forward_mode(self.model)

    @functools.cached_property
    def _teacher_mode(self) -> str:
        """`forward_mode` of the teacher, which may be of another kind."""
        return find_forward_mode(self.roles.models["teacher"])

    @property
    def pass_tokens(self) -> int:
        """Tokens of a forward pass with gradient: on a CPU larger ones hold more memory and are no faster, but for small
        models (measured for widths of 256 and 512)."""
        if self.device.type != "cpu":
            return LARGE_PASS
        hidden = int(self.base.get_input_embeddings().weight.shape[1])
        return min(MIDDLE_PASS, max(SMALL_PASS, PASS_NUMBERS // hidden))

    def micro_batches(self, actions: Actions, max_tokens: int) -> list[Tensor]:
        """Rows [n] int64 of micro-batches of at most `max_tokens` tokens to compute (at least one sequence each)."""
        assert isinstance(actions, Sequences)
        self.pass_limit = max_tokens // 2 if self.halved else max_tokens
        parts = packs(actions, max_tokens) if self.forward_mode == "shared" else actions.micro_batches(max_tokens)
        return [half for rows in parts for half in rows.tensor_split(2) if len(half)] if self.halved else parts

    @torch.no_grad()
    def hidden_states(self, contexts: Sequence[Sequence[int]], *, layer: int = -1) -> list[Tensor]:
        """[C, d] for each context: the hidden states of a layer (as transformers counts them) at its tokens."""
        ids = [torch.tensor(list(context), dtype=torch.int64) for context in contexts]
        padded = to_device(torch.nn.utils.rnn.pad_sequence(ids, batch_first=True), self.device)
        self.forwards += 1
        states = self.model(input_ids=padded, use_cache=False, output_hidden_states=True).hidden_states[layer]
        return [row[: len(own)] for row, own in zip(states, ids, strict=True)]

    @property
    def vocabulary(self) -> int:
        """V, the number of logits."""
        return int(self.base.get_output_embeddings().weight.shape[0])

    def head_weight(self) -> Tensor:
        """Weights [V, d] of the output layer."""
        weight: Tensor = self.base.get_output_embeddings().weight.detach()
        return weight if weight.dtype == torch.float64 else weight.float()

    def first_not_finite(self, actions: Actions, role: str = "policy") -> str | None:
        """The part of a model that gives NaN or infinity first, for the first sequence; None if none does."""
        assert isinstance(actions, Sequences)
        with self.roles.playing(role) as model:
            piece = actions.pieces[0]
            return first_not_finite(model, torch.cat([piece.context, piece.completion]).tolist())


def _ids(tokens: Sequence[int]) -> Tensor:
    return torch.tensor(list(tokens), dtype=torch.int64)


def base_of(model: Any) -> Any:
    """The transformers model, without a wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def forward(
    scored: Any, row: Packed, sequences: Sequences, mode: str, *, states: bool, activations: str = "keep"
) -> tuple[Tensor | None, Tensor | None]:
    """A forward pass of a transformers model over packed sequences; see `CausalLM._forward`."""
    base = base_of(scored)
    if not row.ids.numel():
        # No token of any sequence: nothing to compute, on the graph all the same.
        return base.get_output_embeddings().weight[:0], None
    if activations == "checkpoint" and torch.is_grad_enabled():
        with checkpointed(base, row.layout if mode == "shared" else None):
            return forward(scored, row, sequences, mode, states=states)
    if mode == "shared":
        with streamed(base, row.layout) if activations == "stream" else packed(base, row.layout):
            positions = row.layout.positions()[None]
            given = inputs(base, row.ids[None], row, [(0, step.place) for step in row.soft])
            out = base.base_model(**given, position_ids=positions, use_cache=False)
        return out.last_hidden_state[0, row.source], None
    whole = [torch.cat([piece.context, piece.completion]) for piece in sequences.pieces]
    ids = to_device(torch.nn.utils.rnn.pad_sequence(whole, batch_first=True), row.ids.device)
    given = inputs(base, ids, row, [(step.piece, step.at) for step in row.soft])
    if mode == "padded":
        return base.base_model(**given, use_cache=False).last_hidden_state[row.piece, row.place], None
    out = scored(**given, use_cache=False, output_hidden_states=states)
    hidden = out.hidden_states[-1][row.piece, row.place] if states else None
    return hidden, out.logits[row.piece, row.place]


def inputs(base: Any, ids: Tensor, row: Packed, places: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
    """What the model reads: token ids [B, N], or, where a row has soft steps, embeddings with theirs at these places of it.

    No gradient goes to what is mixed.
    """
    if not row.soft:
        return {"input_ids": ids}
    embed = base.get_input_embeddings()
    out: Tensor = embed(ids)
    found = torch.stack([mixture_of(embed, [soft.step], soft.mixer)[0] for soft in row.soft])
    first, second = (tensor_on(each, ids.device) for each in zip(*places, strict=True))
    return {"inputs_embeds": out.index_put((first, second), found.to(out.dtype))}


@torch.no_grad()
def find_forward_mode(model: Any) -> str:
    """The fastest way of scoring that gives the model's own logits (see `CausalLM.forward_mode`).

    Raises:
        Diverged: they are no numbers.
    """
    base = base_of(model)
    device = next(model.parameters()).device
    # Two rollouts of one prompt and one of another, of tokens that every vocabulary has.
    tokens = torch.arange(2, 8)
    probe = Sequences((tokens[:4], tokens[:4], tokens[2:5]), (tokens[1:4], tokens[3:6], tokens[:2]))
    row = pack(probe, device)
    _, right = forward(model, row, probe, "whole", states=False)
    assert right is not None
    if bool(right.isnan().any()):
        first = torch.cat([probe.context[0], probe.completion[0]]).tolist()
        raise diverged(first_not_finite(model, first), "trying it on a few tokens")
    near = {torch.float64: 1e-6, torch.float32: 1e-3}.get(right.dtype, 0.05) * (1.0 + float(right.abs().max()))
    for mode in ("shared", "padded"):
        try:
            hidden, _ = forward(model, row, probe, mode, states=False)
            assert hidden is not None
            logits = head_of(base)(hidden)
        except (AttributeError, TypeError, ValueError, RuntimeError):
            continue
        if logits.shape == right.shape and float((logits - right).abs().max()) <= near:
            return mode
    return "whole"
