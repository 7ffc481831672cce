"""Several runs: compared, and over a grid of settings."""
