"""Where programs run in tests."""

from __future__ import annotations

from functools import cache

import pytest

from cohort.errors import UsageError
from cohort.rewards.code import sandbox


@cache
def missing() -> str:
    """Why there is no sandbox on this machine; "" where there is one."""
    try:
        sandbox.check()
    except UsageError as error:
        return str(error)
    return ""


needs_sandbox = pytest.mark.skipif(bool(missing()), reason=f"no sandbox here: {missing()}")
