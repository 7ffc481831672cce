"""Policies: models with log-probabilities of actions. Only a policy knows what an action is."""
