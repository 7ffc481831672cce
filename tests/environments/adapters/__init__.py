"""Adapters, each against the real package. Where that is not installed, its tests say how to run them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest


def needs(package: str) -> Any:
    """Tests of a module need a package, which `make test` may not have."""
    reason = f"{package} is not installed: make test-adapters"
    return pytest.mark.skipif(find_spec(package) is None, reason=reason)


def say(text: str, **more: Any) -> dict[str, Any]:
    """A message of the policy's."""
    return {"role": "assistant", "content": text, **more}
