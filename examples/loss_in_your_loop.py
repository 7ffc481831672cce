"""A method's advantages and loss on tensors of your own trainer: python examples/loss_in_your_loop.py

Nothing else of cohort is needed: two prompts with three rollouts each, of up to four tokens.
"""

import torch

import cohort
from cohort import Batch


def main() -> torch.Tensor:
    torch.manual_seed(0)
    mask = torch.arange(4) < torch.tensor([4, 2, 3, 4, 1, 4])[:, None]
    logp = (-torch.rand(6, 4)).requires_grad_()  # your model's log-probabilities of the sampled tokens
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0])
    batch = Batch.of(
        mask,
        group=torch.tensor([0, 0, 0, 1, 1, 1]),
        rewards=rewards,
        accuracy=rewards,
        logp=logp,
        old_logp=logp.detach(),
    )
    method = cohort.method("dr-grpo(max_tokens=4)+gspo:ratio")
    states = method.init(size=2)
    loss = method.bind(states).loss(method.bind(states).prepare(batch).batch)
    loss.total.backward()
    assert logp.grad is not None
    print(f"loss {float(loss.total.detach()):.4f}; the gradient of each token's log-probability:\n{logp.grad}")
    return logp.grad


if __name__ == "__main__":
    main()
