"""A daemon for many cycles, and its use of resources.

    python -m tests.support.soak CYCLES SECONDS_FROM_ONE_TO_THE_NEXT

Prints ten lines of JSON during the run. The settings come from the environment; the
intervals are shorter than the settings allow.
"""

import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple, cast

from etl import logs
from etl.daemon.daemon import Daemon
from etl.settings import FamilySettings, ScheduleSettings, Settings, load
from tests.support.http import get

ROWS = 10


class Row(NamedTuple):
    """The resources after `cycles` cycles."""

    cycles: int
    memory: int
    """Resident, in kB."""
    threads: int
    files: int
    """Open file descriptors."""
    sockets: int


def with_short_intervals(settings: Settings, seconds: float) -> Settings:
    """The settings with intervals of a fraction of a second."""
    unchecked: dict[str, Any] = {"ttl": 300, "refresh_seconds": seconds * 2}
    family = FamilySettings.model_construct(**unchecked)
    families = settings.families | {"mcp:server:status": family}
    schedule = ScheduleSettings.model_construct(cycle_seconds=cast("Any", seconds))
    return settings.model_copy(update={"schedule": schedule, "families": families})


def held(cycles: int) -> Row:
    """The resources of this process now."""
    process = Path("/proc/self")
    pages = int((process / "statm").read_text().split()[1])
    links = [_target(path) for path in (process / "fd").iterdir()]
    sockets = sum(link.startswith("socket:") for link in links)
    threads = len(list((process / "task").iterdir()))
    return Row(cycles, pages * os.sysconf("SC_PAGE_SIZE") // 1024, threads, len(links), sockets)


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""  # closed meanwhile


def finished_cycles(url: str) -> int:
    """The number of finished cycles in the metrics."""
    lines = get(f"{url}/metrics").text.splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith("etl_cycles_total{")))


def watch(daemon: Daemon, cycles: int) -> None:
    """Print a row after each tenth of the cycles, then stop the daemon."""
    for tenth in range(1, ROWS + 1):
        while (count := finished_cycles(daemon.url)) < cycles * tenth // ROWS:
            time.sleep(0.05)
        print(json.dumps(held(count)._asdict()), flush=True)  # noqa: T201 (its purpose)
    daemon.stop()


if __name__ == "__main__":
    logs.configure(logging.ERROR)
    under_test = Daemon(with_short_intervals(load(), float(sys.argv[2])))
    threading.Thread(target=watch, args=(under_test, int(sys.argv[1])), daemon=True).start()
    under_test.run()
