"""The partition that this worker works on."""

import re

_ORDINAL = re.compile(r"-([0-9]+)$")


def partition_from(setting: int | None, host_name: str) -> int:
    """Return the partition in the setting, or else the ordinal in the host name.

    A StatefulSet names its pods `name-0`, `name-1`, …: the ordinal is the partition. Raises
    `ValueError` if there is neither.
    """
    if setting is not None:
        return setting
    match = _ORDINAL.search(host_name)
    if match is None:
        raise ValueError(
            f"Set MICROFIN_PARTITION: the host name {host_name!r} does not end in the ordinal that "
            "a StatefulSet gives its pods."
        )
    return int(match[1])
