"""A policy of which every rank holds a part: torch's FSDP2, applied from outside.

At rest each rank holds its part of every parameter, in every role, and of the optimizer's state: DTensors, that an optimizer,
clipping and the rules of roles work on as they are. What passes are made with depends on the way:

    "optimizer"    Parameters are whole from the beginning of an update to its end, and so are gradients. No pass waits for
                   another rank, so ranks may make different numbers of them, and agree on what to do about an error. The
                   gradients are added up over ranks, once, when all passes are made.
    "parameters"   A layer's parameters are gathered when it is computed and given back after it, and its gradient is added up
                   over ranks in each backward pass. Passes of all ranks wait for each other: all make the same number, and
                   an error in one of them, such as of memory, is an end to all.

Gradients are sums over ranks, since the weights of a loss are those of the whole minibatch. A parameter that no rank's loss
depends on has no gradient, as in one process, rather than one of zeros, which momentum and weight decay would act on.

Experts of a mixture are cut as every other parameter is, and each rank computes all of them: there is no expert parallelism.
A sequence stands on one rank as a whole: there is no context parallelism, and its length is bounded by a rank's memory
(`activations` "stream" holds least). Ranks can compute each layer together, over the mesh's dimension "tensor": see
tensor_parallel.py.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Partial, Shard
from torch.nn.utils import get_total_norm

from cohort.axes.optimizer import cut_like, whole
from cohort.distributed.tensor_parallel import parallelize
from cohort.errors import UsageError
from cohort.policies.activations import layers_of
from cohort.policies.agents import AgentPolicies, members_of
from cohort.policies.causal_lm import CausalLM, base_of
from cohort.policies.critic import Critic
from cohort.policies.roles import Roles
from cohort.training.limits import check_shared
from cohort.types.policy import Actions, Policy

T = TypeVar("T")
Way = Literal["optimizer", "parameters"]
HALF = (torch.bfloat16, torch.float16)


class Root(nn.Module):
    """A model, any pass of which is a forward pass of this module: what FSDP gathers parameters for, and gives them back after.

    A policy calls its model's parts one by one (the layers, then the output layer on chunks of their result).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, made: Callable[[], T]) -> T:
        """What `made` gives, which may call any part of the model."""
        return made()


class Sharded:
    """The module of a role, cut over the ranks of a mesh's dimension "data", and what its plan cuts over those of "tensor".

    Attributes:
        touched: names of parameters that this rank's backward passes have reached.
    """

    def __init__(self, model: nn.Module, mesh: DeviceMesh, way: Way) -> None:
        self.mesh, self.way, self.model = mesh["data"], way, model
        self._tensor = mesh["tensor"]
        whole = way == "optimizer"
        backbone = model.backbone if isinstance(model, Critic) else model
        self._partial: set[str] = set()
        if self._tensor.size() > 1 and backbone is not None:
            prefix = "backbone." if isinstance(model, Critic) else ""
            self._partial = {prefix + name for name in parallelize(backbone, self._tensor)}
        self.root = Root(model)
        layers = [] if backbone is None else layers_of(base_of(backbone))
        for module in [*layers, self.root]:
            dtypes = {p.dtype for p in module.parameters() if p.requires_grad}
            # Sums of many ranks' gradients would lose half precision's few bits; in the other way they are added up here.
            reduce = torch.float32 if not whole and dtypes & set(HALF) else None
            policy = MixedPrecisionPolicy(reduce_dtype=reduce, cast_forward_inputs=False)
            fully_shard(module, mesh=self.mesh, reshard_after_forward=not whole, mp_policy=policy)
        for part in self._parts():
            # A sum, not a mean; gloo has no other way to say so.
            part.set_force_sum_reduction_for_comms(True)
            part.set_gradient_divide_factor(1.0)
            part.set_reduce_scatter_unused_params(True)
            part.set_requires_gradient_sync(not whole)
            part.set_reshard_after_backward(not whole)
        with torch.no_grad():
            self.root(lambda: None)
        self.touched: set[str] = set()
        # FSDP keeps a whole parameter's object from its first gathering on, with what is hooked to it and `requires_grad`,
        # which peft changes while an adapter is switched off.
        self.gather()
        self._whole = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda _, name=name: self.touched.add(name))
        self.rest()

    def _parts(self) -> list[FSDPModule]:
        return [module for module in self.root.modules() if isinstance(module, FSDPModule)]

    def gather(self) -> None:
        """Make all parameters whole; all ranks call it."""
        for module in self._parts():
            module.unshard()

    def rest(self) -> None:
        """Give whole parameters back, whatever has become of passes."""
        assert isinstance(self.root, FSDPModule)
        self.root.reset_iter_state()

    def drop(self) -> None:
        """Give whole parameters back, and forget gradients."""
        self.rest()
        self.touched.clear()
        for parameter in [*self._whole, *self.model.parameters()]:
            parameter.grad = None

    def reduce(self) -> None:
        """Have each part of a parameter hold its part of the gradient, added up over ranks; all ranks call it.

        Parameters are in parts afterwards.
        """
        trained = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        if not trained:
            return
        flags = torch.tensor(
            [name in self.touched for name in trained], dtype=torch.int32, device=self.mesh.device_type
        )
        dist.all_reduce(flags, dist.ReduceOp.MAX, group=self.mesh.get_group())
        reached = {name for name, flag in zip(trained, flags.tolist(), strict=True) if flag}
        self.touched.clear()
        if self.way == "parameters":
            self.rest()
            for name, parameter in self.model.named_parameters():
                if name not in reached:
                    parameter.grad = None
            self._complete()
            return
        own: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            if name in reached:
                own[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                if isinstance(parameter, DTensor):
                    own[name] = own[name].redistribute(placements=parameter.placements)  # type: ignore[attr-defined]
            parameter.grad = None
        self.rest()
        for name, parameter in self.model.named_parameters():
            if name in reached:
                parameter.grad = self._reduced(local(own.pop(name)), parameter.data)
        self._complete()

    def _reduced(self, grad: Tensor, like: Tensor) -> Tensor:
        """The sum over ranks of what each has as the gradient of a whole parameter, in parts as that is at rest."""
        assert isinstance(like, DTensor)
        wide = grad.float() if grad.dtype in HALF else grad
        sums = DTensor.from_local(wide, self.mesh, [Partial()], run_check=False).redistribute(placements=[Shard(0)])
        part = sums.to_local().to(like.dtype)
        shape, stride = like.shape, like.stride()
        return DTensor.from_local(part, like.device_mesh, like.placements, run_check=False, shape=shape, stride=stride)

    def _complete(self) -> None:
        """Add up over the ranks that compute layers together what each has from its own heads alone."""
        for name, parameter in self.model.named_parameters():
            if name in self._partial and parameter.grad is not None:
                dist.all_reduce(local(parameter.grad), group=self._tensor.get_group())


class ShardedLM(CausalLM):
    """A CausalLM of which every rank holds a part; see `cohort.types.policy.Policy`.

    Passes are made after `ready`, to `rest`; or after `ready_to_update`, to `reduce`. Before and after them parameters,
    gradients and the models in roles are in parts: what an optimizer, clipping and `roles.move` work on.

    Args:
        whole: the policy, the same on every rank and with the models in all roles that it is to have. Its modules are cut in
            place, and it can be used no more.
        mesh: with the dimensions "data" and "tensor".
        way: see the module.

    Attributes:
        shards: role -> its module.
    """

    def __init__(self, whole: CausalLM, mesh: DeviceMesh, way: Way = "optimizer") -> None:
        # Found by trying, which takes whole parameters.
        _ = whole.forward_mode
        if "teacher" in whole.roles.models:
            _ = whole._teacher_mode
        self.__dict__.update(whole.__dict__)
        self.way = way
        self.shards = {role: Sharded(model, mesh, way) for role, model in self.roles.models.items()}

    # passes --------------------------------------------------------------------------------------------------------

    def log_probs(
        self,
        actions: Actions,
        *,
        width: int,
        temperature: float = 1.0,
        want: frozenset[str] = frozenset({"logp"}),
        role: str = "policy",
    ) -> dict[str, Tensor]:
        """See CausalLM."""
        how: dict[str, Any] = {"temperature": temperature, "want": want, "role": role}
        made = functools.partial(super().log_probs, actions, width=width, **how)
        if not any(map(len, actions.completion)):  # type: ignore[attr-defined]
            made = functools.partial(self._nothing, len(actions), width, **how)
        for shard in self._used(role, want):
            made = functools.partial(shard.root, made)
        # FSDP takes a derivative by what a module gives for the beginning of a backward pass through it. Here it may be one of
        # the loss alone.
        return {name: value.view_as(value) for name, value in made().items()}

    def _nothing(self, count: int, width: int, **how: Any) -> dict[str, Tensor]:
        """What rows without a token give, on the graph of a pass that calls what those of other ranks call."""
        some = super().log_probs(self.actions_after([(2, 3)], [(4,)]), width=1, **how)
        return {
            name: value.new_zeros(count, width, *value.shape[2:]) + 0.0 * value.sum() for name, value in some.items()
        }

    def _used(self, role: str, want: frozenset[str]) -> list[Sharded]:
        """What a pass takes parameters of."""
        names = []
        if "values" in want:
            names.append("target" if role == "target" else "critic")
            critic = self.roles.models[names[0]]
            if want == {"values"} and isinstance(critic, Critic) and critic.backbone is not None:
                return [self.shards[names[0]]]
        names.append(role if role in self.shards and role != "target" else "policy")
        return [self.shards[name] for name in names]

    def micro_batches(self, actions: Actions, max_tokens: int) -> list[Tensor]:
        """See CausalLM. In the way "parameters" a micro-batch is one pass, whatever a rollout's length."""
        parts = super().micro_batches(actions, max_tokens)
        if self.way == "parameters":
            self.pass_limit = None
        return parts

    def idle_pass(self, want: frozenset[str], role: str = "policy") -> None:
        """Take part in a pass of the other ranks that have more to do; with a gradient, in a backward pass too."""
        found = self.log_probs(self.actions_after([(2, 3)], [()]), width=1, want=want, role=role)
        if torch.is_grad_enabled():
            torch.stack([value.sum() for value in found.values()]).sum().mul(0.0).backward()

    def first_not_finite(self, actions: Actions, role: str = "policy") -> str | None:
        """See CausalLM. In the way "parameters" it is not found out: other ranks do not take part in the pass for it."""
        return None if self.way == "parameters" else super().first_not_finite(actions, role)

    # where parameters are ------------------------------------------------------------------------------------------

    def ready(self, role: str, want: frozenset[str]) -> None:
        """Passes of a role without gradient are about to be made; all ranks call it."""
        self._gather(self._used(role, want))

    def ready_to_update(self) -> None:
        """Passes with gradient are about to be made, of the policy and what is trained beside it; without one, of its slow
        copy and of its teacher. All ranks call it."""
        roles = {"policy", "ema", "teacher", *self._trained}
        self._gather([shard for role, shard in self.shards.items() if role in roles])

    def _gather(self, used: list[Sharded]) -> None:
        for shard in used if self.way == "optimizer" else ():
            shard.gather()

    @property
    def _trained(self) -> list[str]:
        return [role for role in self.shards if role == "policy" or self.roles.rules[role].trained]

    def reduce(self) -> None:
        """Passes are over: add the gradients of all ranks up; all ranks call it."""
        for role in self._trained:
            self.shards[role].reduce()
        self.rest()

    def rest(self) -> None:
        """Passes are over, or have failed: hold parts alone."""
        for shard in self.shards.values():
            shard.rest()

    def drop(self) -> None:
        """Forget gradients, also of passes that were not finished."""
        for shard in self.shards.values():
            shard.drop()

    # files ---------------------------------------------------------------------------------------------------------

    def save(self, folder: Path, *, dtype: torch.dtype | None = None) -> None:
        """Not here: no rank has the weights. `publish` gives them to a whole policy, which can be saved.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("this policy is in parts: publish it to a whole one, and save that")

    def load_weights(self, folder: Path) -> None:
        """Not here: a whole policy loads them, and `load` takes them over.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("this policy is in parts: load a whole one, and take its weights over")


def twin(policy: Policy, device: torch.device | str = "cpu") -> CausalLM | AgentPolicies:
    """The same language model with weights of its own, on a device, for `shard` to cut.

    Models in roles that the policy was given (a teacher) go to the twin, and the policy has them no more.

    Raises:
        UsageError: it is no language model of transformers.
    """
    if isinstance(policy, AgentPolicies):
        return AgentPolicies(
            twin(policy.shared, device), {agent: twin(own, device) for agent, own in policy.members.items() if agent}
        )
    if not isinstance(policy, CausalLM):
        raise UsageError(
            f"{type(policy).__name__} is no language model of transformers, and is trained in one process: leave processes out"
        )
    # Found by trying, which is best done where the model is.
    _ = policy.forward_mode
    # A parameter's copy is made on its device at once; a model of the size of a device would not fit there twice.
    copies: dict[int, Any] = {
        id(tensor): nn.Parameter(tensor.detach().to(device, copy=True), requires_grad=tensor.requires_grad)
        for tensor in policy.model.parameters()
    }
    copies |= {id(tensor): tensor.detach().to(device, copy=True) for tensor in policy.model.buffers()}
    out = copy.copy(policy)
    out.roles = Roles(copy.deepcopy(policy.model, copies), critic=lambda kind: Critic.beside(out.model, kind))
    for role in [role for role in policy.roles.models if role != "policy"]:
        out.roles.models[role] = policy.roles.models.pop(role)
        out.roles.rules[role] = policy.roles.rules.pop(role)
    return out


def shard(policy: Policy, mesh: DeviceMesh, way: Way = "optimizer") -> CausalLM | AgentPolicies:
    """A policy that is whole on every rank, with the models in its roles, as one that is in parts.

    Args:
        policy: a `CausalLM`, or several for agents; of no use afterwards.
        mesh: with the dimensions "data" and "tensor".

    Raises:
        UsageError: it cannot be cut, or not in this way.
    """
    if isinstance(policy, AgentPolicies):
        own = {agent: shard(each, mesh, way) for agent, each in policy.members.items() if agent}
        return AgentPolicies(shard(policy.shared, mesh, way), own)
    if not isinstance(policy, CausalLM):
        raise UsageError(f"{type(policy).__name__} is no language model of transformers, and cannot be cut over ranks")
    if mesh["tensor"].size() > 1:
        for model in policy.roles.models.values():
            backbone = model.backbone if isinstance(model, Critic) else model
            if backbone is not None:
                check_shared(backbone, mesh["tensor"].size(), policy.name)
        # What is compiled is a layer of one rank's.
        policy.compiled = None
    return ShardedLM(policy, mesh, way)


def parts_of(policy: Policy) -> list[ShardedLM]:
    """The language models in parts that a policy is made of."""
    return [each for each in members_of(policy).values() if isinstance(each, ShardedLM)]


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor; all of one that is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gather(model: nn.Module, *, trained: bool = False) -> Iterator[tuple[str, Tensor]]:
    """(name, whole tensor) of each parameter, one after the other; all ranks go through them, and each gets all.

    Args:
        model: in parts, as `policy.model`.
        trained: parameters alone that are trained: the others are as they were at first.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or not trained:
            yield name, whole(parameter.detach())


@torch.no_grad()
def fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Take over each rank's part of whole tensors, that each rank has: those of a model's parameters, by name.

    Raises:
        KeyError: one that is trained is missing.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or name in tensors:
            parameter.copy_(cut_like(tensors[name].to(parameter.dtype), parameter))


@torch.no_grad()
def publish(policy: Policy, replica: Policy) -> None:
    """Give the weights of a policy in parts to a whole one; all ranks call it."""
    for own, other in zip(parts_of(policy), members_of(replica).values(), strict=True):
        taking = dict(other.model.named_parameters())
        for name, tensor in gather(own.model, trained=True):
            taking[name].copy_(tensor)


def load(policy: Policy, replica: Policy) -> None:
    """Take over the weights of a whole policy, which each rank has."""
    for own, other in zip(parts_of(policy), members_of(replica).values(), strict=True):
        fill(own.model, dict(other.model.named_parameters()))


@torch.no_grad()
def clip(parameters: Iterable[nn.Parameter], most: float) -> float:
    """torch's `clip_grad_norm_` of tensors in parts, on meshes of any kind: the norm of all before, the same on all ranks."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    kinds: dict[Any, list[Tensor]] = {}
    for grad in grads:
        kinds.setdefault((grad.device_mesh, grad.placements) if isinstance(grad, DTensor) else None, []).append(grad)
    if not kinds:
        return 0.0
    total = torch.stack([whole(get_total_norm(same)) for same in kinds.values()]).norm()
    scale = float((most / (total + 1e-6)).clamp(max=1.0))
    for grad in grads:
        grad.mul_(scale)
    return float(total)
