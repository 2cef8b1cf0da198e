"""What one command costs: wall time, memory of all its processes together, CPU time by process.

Memory is the sum over the command and all its descendants, looked at every 100 ms. PSS counts a page that
several of them share once (each gets its part), so the sum of it is what the machine gives; the sum of RSS
counts such a page once for each, and is given beside it.

CPU time of the command includes all its descendants: what the kernel adds up for those that their parents
waited for, or what was seen of each at the last look, whichever is more (nobody waits for a fork server and
its workers). That of the servers is what they used meanwhile.
"""

import json
import os
import resource
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import psutil

OURS: Final = "ours"

_ROOT: Final = Path(__file__).parents[1]
_LOOK_SECONDS: Final = 0.1  # a look takes a millisecond for each process, from those who are measured too
_LOOKS_A_SEARCH: Final = 4  # finding descendants walks all of /proc
_MB: Final = 1_000_000


class Failed(Exception):
    """A command that was to be measured ended with an error."""


class Memory(NamedTuple):
    """The most that all processes of a command had together, in MB, and how many processes there were."""

    pss_mb: float = 0.0
    rss_mb: float = 0.0
    processes: int = 0


class Measured(NamedTuple):
    """What a command cost and what it printed. CPU seconds are by process: each server, and ours."""

    wall_seconds: float
    memory: Memory
    cpu_seconds: dict[str, float]
    answer: Any


class Meter:
    """Runs commands while looking at what they use; `servers` are the process ids to watch beside them."""

    def __init__(self, servers: Mapping[str, int]) -> None:
        self._servers = {name: psutil.Process(pid) for name, pid in servers.items()}

    def run(self, command: Sequence[str], variables: Mapping[str, str] | None = None) -> Measured:
        """Run a command to its end, in an empty folder; its stdout is one JSON document.

        Raises:
            Failed: it ended with another exit code than 0.
        """
        before = self._cpu()
        began = time.perf_counter()
        with _start(command, variables or {}) as process, _MemoryWatch(process.pid) as watch:
            out, err = process.communicate()
            wall = time.perf_counter() - began
        if process.returncode:
            raise Failed(f"{' '.join(command)} ended with {process.returncode}: {err.strip()[-1000:]} {out}")
        used = {name: round(after - before[name], 3) for name, after in self._cpu().items()}
        used[OURS] = max(used[OURS], round(watch.cpu_seconds, 3))
        return Measured(wall, watch.peak, used, json.loads(out))

    def _cpu(self) -> dict[str, float]:
        servers = {name: sum(process.cpu_times()[:2]) for name, process in self._servers.items()}
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return servers | {OURS: ended.ru_utime + ended.ru_stime}


def _start(command: Sequence[str], variables: Mapping[str, str]) -> "subprocess.Popen[str]":
    """Start it where no settings of the developer reach it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ETL_")}
    return subprocess.Popen(
        command,
        cwd=tempfile.gettempdir(),
        env={**inherited, "PYTHONPATH": str(_ROOT), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class _MemoryWatch:
    """Looks at the memory of a process and its descendants until it is left."""

    def __init__(self, pid: int) -> None:
        self.peak = Memory()
        self._used: dict[psutil.Process, float] = {}
        self._root = psutil.Process(pid)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def cpu_seconds(self) -> float:
        """What all processes had used when each was last looked at."""
        return sum(self._used.values())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        looks, family = 0, [self._root]
        while not self._done.wait(_LOOK_SECONDS):
            with suppress(psutil.Error):
                if looks % _LOOKS_A_SEARCH == 0:
                    family = [self._root, *self._root.children(recursive=True)]
                self._look(family)
            looks += 1

    def _look(self, family: Sequence[psutil.Process]) -> None:
        for process in family:
            with suppress(psutil.Error):
                self._used[process] = sum(process.cpu_times()[:2])
        sizes = [size for process in family if (size := _size(process))]
        pss, rss = sum(pss for pss, _ in sizes), sum(rss for _, rss in sizes)
        most = self.peak
        self.peak = Memory(max(most.pss_mb, pss), max(most.rss_mb, rss), max(most.processes, len(sizes)))


def _size(process: psutil.Process) -> tuple[float, float] | None:
    """PSS and RSS in MB; None when it has ended."""
    try:
        info = process.memory_full_info()
    except psutil.Error:
        return None
    return info.pss / _MB, info.rss / _MB
