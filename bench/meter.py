"""Measure a command: wall time, CPU time by process, memory of all its processes.

The started process is the coordinator, its descendants are the workers. CPU time of the fork server counts as that of
workers, but only its children count for the memory of a worker. The CPU time of the coordinator is exact: it is read
after its end. That of a worker is read every 50 ms. Memory is PSS, which divides shared pages among the processes
that use them, so the sum over processes is right.
"""

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import psutil

ROOT: Final = Path(__file__).parents[1]

_SAMPLE_SECONDS: Final = 0.05
_SAMPLES_PER_SEARCH: Final = 5  # finding descendants and measuring PSS takes milliseconds
_MB: Final = 1_000_000


class Failed(Exception):
    """A measured command ended with an error."""


class Measured(NamedTuple):
    """The cost of a command, and the JSON that it printed."""

    seconds: float
    cpu_seconds: dict[str, float]
    """By `coordinator`, `workers`, and the name of each server."""
    pss_mb: float
    """The maximum over all of its processes together."""
    worker_pss_mb: float
    """The maximum of a single worker."""
    answer: Any


class Meter:
    """Measures commands. `servers` are process ids whose CPU time is measured too, by name."""

    def __init__(self, servers: Mapping[str, int]) -> None:
        self._servers = {name: psutil.Process(pid) for name, pid in servers.items()}

    def run(self, command: Sequence[str], variables: Mapping[str, str] | None = None) -> Measured:
        """Run a command that prints one JSON document, in an empty folder.

        Raises:
            Failed: its exit code is not 0.
        """
        before = self._used()
        with (
            tempfile.TemporaryDirectory() as folder,
            tempfile.TemporaryFile("w+") as out,
            tempfile.TemporaryFile("w+") as err,
        ):
            began = time.perf_counter()
            process = start_command(command, variables or {}, cwd=folder, stdout=out, stderr=err)
            with _Watch(process.pid) as watch:
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # its times can still be read
                seconds = time.perf_counter() - began
            code = process.wait()
            for file in (out, err):
                file.seek(0)
            output, errors = out.read(), err.read()
        if code:
            raise Failed(f"{' '.join(command)} ended with {code}: {errors.strip()[-1000:]} {output}")
        used = {name: after - before[name] for name, after in self._used().items()}
        cpu = {"coordinator": watch.coordinator, "workers": watch.workers} | used
        return Measured(seconds, cpu, watch.pss_mb, watch.worker_pss_mb, json.loads(output))

    def _used(self) -> dict[str, float]:
        return {name: sum(process.cpu_times()[:2]) for name, process in self._servers.items()}


def start_command(
    command: Sequence[str], variables: Mapping[str, str], **places: Any
) -> "subprocess.Popen[bytes]":
    """Start a command without the `ETL_` variables of this process."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ETL_")}
    env = {**inherited, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, **places)


class _Watch:
    """Samples a process and its descendants during the block; only afterwards the process may be waited for."""

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
        # Children that were waited for count exactly; the fork server and its workers are not waited for.
        self.workers = max(sum(self._descendants.values()), times.children_user + times.children_system)

    def _watch(self) -> None:
        for number in count():
            if self._done.wait(_SAMPLE_SECONDS):
                return
            search = number % _SAMPLES_PER_SEARCH == 0
            with suppress(psutil.Error):
                found = self._root.children(recursive=True) if search else []
                self._descendants |= {process: 0.0 for process in found if process not in self._descendants}
            for process in self._descendants:
                with suppress(psutil.Error):
                    self._descendants[process] = sum(process.cpu_times()[:2])
            if search:
                self._measure_memory()

    def _measure_memory(self) -> None:
        total = 0.0
        for process in (self._root, *self._descendants):
            with suppress(psutil.Error):
                pss = process.memory_full_info().pss / _MB
                total += pss
                if process.ppid() not in {self._root.pid, os.getpid()}:
                    self.worker_pss_mb = max(self.worker_pss_mb, pss)
        self.pss_mb = max(self.pss_mb, total)
