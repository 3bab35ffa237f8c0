"""Whether the API server's authority has been replaced since the operator has read it.

Both clients of the API server, kopf's and ours, read it only once. The kubelet renews its file in
the running pod; it also replaces the file's neighbours, so only the content counts.
"""

from pathlib import Path
from typing import Final

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")
"""Where the kubelet writes the authority; it is not there outside a cluster."""


class ClusterAuthority:
    """The authority's file, and its content at the start."""

    def __init__(self, file: Path = SERVICE_ACCOUNT) -> None:
        self._file = file
        self._read = self._content()

    def is_replaced(self) -> bool:
        """Return whether the file's content has changed since the start."""
        now = self._content()
        return bool(self._read and now) and now != self._read

    def _content(self) -> bytes:
        """Return the content, or nothing while there is no file."""
        try:
            return self._file.read_bytes()
        except OSError:
            return b""
