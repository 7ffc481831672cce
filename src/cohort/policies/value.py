"""A value model: what a completion that begins like this is worth. A copy of the policy's model, with a head on the last token.

Source: arXiv:2508.19576, which trains it on the states of a tree search by the squared error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cohort.devices import tensor_on, to_device
from cohort.errors import UsageError
from cohort.policies.causal_lm import CausalLM
from cohort.policies.critic import Critic
from cohort.seeds import generator

# Sequences in a pass.
AT_ONCE = 16


class ValueModel:
    """Values of sequences of token ids; it expects nothing before it is fitted.

    Attributes:
        most: tokens that it reads, the last ones; None if there is no limit.
    """

    def __init__(self, policy: CausalLM) -> None:
        # Small steps of a small learning rate are lost in half precision.
        self.critic = Critic.beside(policy.model, "model").float()
        self.device, self.most = policy.device, policy.renderer.context_length

    def _values(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """[n] of n sequences with at least one token each."""
        ids = [torch.tensor(list(each)[-(self.most or 0) :], dtype=torch.int64) for each in sequences]
        padded = to_device(torch.nn.utils.rnn.pad_sequence(ids, batch_first=True), self.device)
        last = tensor_on([len(each) - 1 for each in ids], self.device)
        # Right padding: a causal model does not see what stands behind the last token.
        hidden = self.critic.backbone(input_ids=padded, use_cache=False, output_hidden_states=True).hidden_states[-1]
        values: Tensor = self.critic(hidden[torch.arange(len(ids), device=self.device), last])
        return values

    @torch.no_grad()
    def values(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        """Of each sequence, in its order."""
        out: list[float] = []
        for at in range(0, len(sequences), AT_ONCE):
            out += self._values(sequences[at : at + AT_ONCE]).tolist()
        return out

    def fit(
        self,
        sequences: Sequence[Sequence[int]],
        targets: Sequence[float],
        *,
        lr: float,
        epochs: int,
        seed: int = 0,
        report: Callable[[int, float], None] = lambda epoch, loss: None,
    ) -> None:
        """Minimise the squared error to the targets, in an order that the seed fixes; reports the mean of each epoch."""
        parameters = [p for p in self.critic.parameters() if p.requires_grad]
        optimizer, rng = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0), generator(seed, "value")
        for epoch in range(1, epochs + 1):
            total = 0.0
            for rows in torch.randperm(len(sequences), generator=rng).split(AT_ONCE):
                wanted = tensor_on([targets[row] for row in rows.tolist()], self.device)
                loss = (self._values([sequences[row] for row in rows.tolist()]) - wanted).square().mean()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                optimizer.zero_grad()
                total += float(loss.detach()) * rows.numel()
            report(epoch, total / max(1, len(sequences)))

    def save(self, path: Path) -> None:
        """Write the weights."""
        torch.save({name: value.cpu() for name, value in self.critic.state_dict().items()}, path)

    def load(self, path: Path) -> None:
        """Read the weights.

        Raises:
            UsageError: there is no such file, or it was made for another model.
        """
        try:
            self.critic.load_state_dict(torch.load(path, map_location=self.device, weights_only=True))
        except FileNotFoundError:
            raise UsageError(
                f"there is no value model {path}: --value-data DATA trains one, and writes it there"
            ) from None
        except Exception as error:
            raise UsageError(f"{path} is no value model of this model: train it again with --value-data") from error
