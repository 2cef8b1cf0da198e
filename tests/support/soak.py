"""A daemon for so many cycles in a row, and what it holds of the machine meanwhile.

    python -m tests.support.soak CYCLES SECONDS_FROM_ONE_TO_THE_NEXT

Prints ten lines of JSON in the course of it. The settings come from the environment, as always; the
intervals are those no setting may have, which is why this is no command.
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
    """After so many cycles."""

    cycles: int
    memory: int
    """Resident, in kB."""
    threads: int
    files: int
    """Open file descriptors."""
    sockets: int


def hurried(settings: Settings, seconds: float) -> Settings:
    """Cycles and refreshes at intervals of a fraction of a second."""
    unchecked: dict[str, Any] = {"ttl": 300, "refresh_seconds": seconds * 2}
    family = FamilySettings.model_construct(**unchecked)
    families = settings.families | {"mcp:server:status": family}
    schedule = ScheduleSettings.model_construct(cycle_seconds=cast("Any", seconds))
    return settings.model_copy(update={"schedule": schedule, "families": families})


def held(cycles: int) -> Row:
    """What this process holds now."""
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
        return ""  # closed since it was listed


def done(url: str) -> int:
    """How many cycles have ended, as the metrics say."""
    lines = get(f"{url}/metrics").text.splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith("etl_cycles_total{")))


def watch(daemon: Daemon, cycles: int) -> None:
    """Print a row each tenth of the way, then stop the daemon."""
    for tenth in range(1, ROWS + 1):
        while (count := done(daemon.url)) < cycles * tenth // ROWS:
            time.sleep(0.05)
        print(json.dumps(held(count)._asdict()), flush=True)  # noqa: T201 (what it is for)
    daemon.stop()


if __name__ == "__main__":
    logs.configure(logging.ERROR)
    under_test = Daemon(hurried(load(), float(sys.argv[2])))
    threading.Thread(target=watch, args=(under_test, int(sys.argv[1])), daemon=True).start()
    under_test.run()
