"""Rewards: verifiers, user functions, and the process that keeps them away from training."""
