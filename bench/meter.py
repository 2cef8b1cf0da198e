"""What one command costs: wall time, CPU time by process, memory of all its processes together.

The process that is started is the coordinator; all that descend from it are its workers (a fork server among them,
though only what that has forked counts as a worker's memory). The CPU time of the coordinator is read when it has
ended, exactly; that of a worker when it was last seen, at most 50 ms before its end. Memory is PSS: a page that
several processes share counts once, so the sum is what the machine gives.
"""

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import psutil

ROOT: Final = Path(__file__).parents[1]

_LOOK_SECONDS: Final = 0.05
_LOOKS_A_SEARCH: Final = (
    5  # finding descendants walks all of /proc, and PSS takes a millisecond of each process
)
_MB: Final = 1_000_000


class Failed(Exception):
    """A command that was to be measured ended with an error."""


class Measured(NamedTuple):
    """What a command cost, and what it printed."""

    seconds: float
    cpu_seconds: dict[str, float]
    """By `coordinator`, `workers`, and the name of each server."""
    pss_mb: float
    """The most that all of its processes had together."""
    worker_pss_mb: float
    """The most that one worker had."""
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
        before = self._used()
        with (
            tempfile.TemporaryDirectory() as folder,
            tempfile.TemporaryFile("w+") as out,
            tempfile.TemporaryFile("w+") as err,
        ):
            began = time.perf_counter()
            process = _start(command, variables or {}, cwd=folder, stdout=out, stderr=err)
            with _Watch(process.pid) as watch:
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # its times can still be read
                seconds = time.perf_counter() - began
            code = process.wait()
            for file in (out, err):
                file.seek(0)
            said, complaint = out.read(), err.read()
        if code:
            raise Failed(f"{' '.join(command)} ended with {code}: {complaint.strip()[-1000:]} {said}")
        used = {name: after - before[name] for name, after in self._used().items()}
        cpu = {"coordinator": watch.coordinator, "workers": watch.workers} | used
        return Measured(seconds, cpu, watch.pss_mb, watch.worker_pss_mb, json.loads(said))

    def _used(self) -> dict[str, float]:
        return {name: sum(process.cpu_times()[:2]) for name, process in self._servers.items()}


def _start(command: Sequence[str], variables: Mapping[str, str], **places: Any) -> "subprocess.Popen[bytes]":
    """Start it where no settings of the developer reach it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ETL_")}
    env = {**inherited, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, **places)


class _Watch:
    """Looks at a process and its descendants until it is left; the process must not be waited for before."""

    def __init__(self, pid: int) -> None:
        self.pss_mb = self.worker_pss_mb = 0.0
        self._root = psutil.Process(pid)
        self._descendants: dict[psutil.Process, float] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        times = self._root.cpu_times()
        self.coordinator = times.user + times.system
        # Those that a process waited for are in its own times; nobody waits for a fork server and its workers.
        self.workers = max(sum(self._descendants.values()), times.children_user + times.children_system)

    def _watch(self) -> None:
        looks = 0
        while not self._done.wait(_LOOK_SECONDS):
            search = looks % _LOOKS_A_SEARCH == 0
            with suppress(psutil.Error):
                found = self._root.children(recursive=True) if search else []
                self._descendants |= {process: 0.0 for process in found if process not in self._descendants}
            for process in self._descendants:
                with suppress(psutil.Error):
                    self._descendants[process] = sum(process.cpu_times()[:2])
            if search:
                self._measure_memory()
            looks += 1

    def _measure_memory(self) -> None:
        total = 0.0
        for process in (self._root, *self._descendants):
            with suppress(psutil.Error):
                pss = process.memory_full_info().pss / _MB
                total += pss
                if process.ppid() not in {self._root.pid, os.getpid()}:
                    self.worker_pss_mb = max(self.worker_pss_mb, pss)
        self.pss_mb = max(self.pss_mb, total)
