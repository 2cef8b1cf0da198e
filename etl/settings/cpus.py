"""The number of CPUs that this process may use, within the limits of a container or of systemd."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_GROUPS: Final = Path("/sys/fs/cgroup")
_OWN: Final = Path("/proc/self/cgroup")


def usable_cpus(groups: Path = _GROUPS, own: Path = _OWN) -> int:
    """The number of CPUs that the process may run on, at most its quota; at least one.

    The quota is the least of its control group (version 2) and of the groups above: `CPUQuota` of systemd, the CPU
    limit of a container.

    Args:
        groups: where the control groups are mounted.
        own: the file that names the group of this process.
    """
    quotas = [quota for group in _groups(groups, own) if (quota := _quota(group)) is not None]
    return max(1, min([len(os.sched_getaffinity(0)), *map(math.ceil, quotas)]))


def _groups(root: Path, own: Path) -> Iterator[Path]:
    """The group of this process and all above it; a container sees only the root."""
    with suppress(OSError):
        for line in own.read_text("utf-8").splitlines():
            if line.startswith("0::"):
                group = root / line.removeprefix("0::").lstrip("/")
                yield from (above for above in (group, *group.parents) if above.is_relative_to(root))
                return
    yield root


def _quota(group: Path) -> float | None:
    """The number of CPUs that a group may use at a time; None if it is not limited."""
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text("utf-8").split()
        return int(quota) / int(period)  # `max` is not a number
    return None
