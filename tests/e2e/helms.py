"""The helms that the tests use: Helm 3 merges on its own side, Helm 4 lets the server apply."""

import os
from typing import Final

HELM4: Final = "helm"
HELMS: Final = [HELM4, *os.environ.get("MICROFIN_E2E_HELMS", "").split()]
"""Helm 4, and those that the environment names."""

HELM3: Final = HELMS[-1]
"""Helm 4, too, where the environment names no other."""
