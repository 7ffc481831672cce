// Metrics: which stand on the first page, in what order, and what they mean (docs/metrics.md says more).

export const ABOUT = {
  "eval/accuracy": "greedy accuracy on held-out prompts",
  accuracy: "share of rollouts that the verifier calls correct",
  "reward/mean": "mean weighted sum of the reward components",
  entropy: "mean entropy of the sampling distributions, nats a token",
  kl: "k3 estimate of the KL divergence from the reference policy, nats a token",
  loss: "mean over the step's updates",
  grad_norm: "before clipping, mean over the step's updates",
  clip_fraction: "share of tokens with an advantage whose gradient is clipped away",
  "divergence/kl": "of the policy after the step's updates from the one before, nats a token",
  "divergence/ratio": "tokens trained on for each nat of it",
  "advantage/abs_mean": "mean absolute advantage of the tokens trained on",
  zero_signal_groups: "share of groups whose rewards are all equal",
  mismatch: "mean absolute difference of log-probability between engine and trainer, nats",
  "completion/length_mean": "tokens a rollout",
  "completion/truncated": "share that ran into the token limit",
  "time/step": "seconds",
  "rollouts/trained": "rollouts left by the filters",
  lr: "learning rate",
};
const MAIN = Object.keys(ABOUT).filter((name) => !["rollouts/trained", "lr", "mismatch"].includes(name));

export const isMain = (name) => MAIN.includes(name) || (name.startsWith("reward/") && name !== "reward/mean");

/** Main ones first, in their own order; reward components beside their sum; the others by name. */
export function order(names) {
  const rank = (name) => {
    const at = Object.keys(ABOUT).indexOf(name);
    if (at >= 0) return at;
    return name.startsWith("reward/") ? 2.5 : 1000;
  };
  return [...new Set(names)].sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
}
