"""From prompts to scored rollouts, and from rollouts to a batch."""
