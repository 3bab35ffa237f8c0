"""Whether the cluster's network enforces NetworkPolicies, which only its owner knows."""

import os
from typing import Final

import pytest

_VARIABLE: Final = "MICROFIN_E2E_ENFORCED"

needs_enforcement: Final = pytest.mark.skipif(
    _VARIABLE not in os.environ,
    reason=f"set {_VARIABLE} if this cluster's network enforces NetworkPolicies",
)
