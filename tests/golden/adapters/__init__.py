"""What a vector file needs beyond the general runner, a module per method (see tests/golden/runner.py)."""
