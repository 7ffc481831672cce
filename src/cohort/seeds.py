"""Seeds derived by name, so that no random stream depends on what was drawn before it."""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, *parts: object) -> int:
    """A 63-bit seed of its own for every combination of parts."""
    text = "/".join([str(seed), *map(str, parts)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *parts: object) -> torch.Generator:
    """A random stream of its own for every combination of parts."""
    return torch.Generator().manual_seed(derive(seed, *parts))
