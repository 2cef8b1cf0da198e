"""Signals and standard streams of real processes: an orderly end at any time, without tracebacks."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from tests.support.command import StartEtl, end_of
from tests.support.daemons import HISTORY, LEADER, entry_point, every, is_ready, url_of
from tests.support.waiting import eventually

FULL = "/dev/full"
NAMESPACE = ("/usr/bin/unshare", "--pid", "--fork", "--kill-child")


def children(pid: int) -> list[int]:
    """The child processes of a process."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]
    except FileNotFoundError:
        return []


def blocks_sigterm(pid: int) -> bool:
    """Whether SIGTERM is blocked, as from the first line of `etl.__main__` on; `unshare` itself does not count."""
    with suppress(OSError):
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(NAMESPACE[0].encode()):
            return False
        fields = dict(x.split(":\t") for x in Path(f"/proc/{pid}/status").read_text("ascii").splitlines())
        return bool(int(fields["SigBlk"], 16) >> (signal.SIGTERM - 1) & 1)
    return False


@pytest.fixture(autouse=True)
def default_sighup() -> Iterator[None]:
    """Under `nohup` the tests inherit an ignored SIGHUP, and their processes would too."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, previous)


StartFirst = Callable[..., "tuple[int, subprocess.Popen[str]]"]


@pytest.fixture
def start_first(environment: Mapping[str, str], tmp_path: Path) -> Iterator[StartFirst]:
    """Start a command as the first process of a namespace, like a container; returns its pid and its parent."""
    if not os.environ.get("CI") and subprocess.run([*NAMESPACE, "true"], check=False).returncode:
        pytest.skip("needs the permission to create a namespace")
    started: list[subprocess.Popen[str]] = []

    def start(*command: str, **variables: str) -> "tuple[int, subprocess.Popen[str]]":
        parent = subprocess.Popen(
            [*NAMESPACE, *command],
            cwd=tmp_path,
            env={**environment, **variables},
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(parent)
        assert eventually(lambda: bool(children(parent.pid)))
        return children(parent.pid)[0], parent

    yield start
    for parent in started:
        parent.kill()
        parent.communicate()


WITHOUT_REDIS = {"ETL_REDIS__URL": "redis://127.0.0.1:1/0", "ETL_RETRY__SECONDS": "60"}


@pytest.mark.parametrize(("command", "code"), [("run", 0), ("sync", 130)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_during_imports_ends_the_first_process_of_a_container(
    start_first: StartFirst, command: str, code: int, number: signal.Signals
) -> None:
    """The kernel drops signals without a handler for such a process, and none is installed during the imports."""
    pid, parent = start_first(sys.executable, "-m", "etl", command, **WITHOUT_REDIS)
    assert eventually(lambda: blocks_sigterm(pid), seconds=10)
    os.kill(pid, number)
    assert_ended(parent, code)


@pytest.mark.parametrize("delay", [0.1, 0.3, 0.6, 1.0])
def test_sigterm_in_the_first_second_ends_the_daemon(start_first: StartFirst, delay: float) -> None:
    """At any point of its start."""
    pid, parent = start_first(sys.executable, "-m", "etl", "run")
    assert eventually(lambda: blocks_sigterm(pid), seconds=10)
    time.sleep(delay)
    os.kill(pid, signal.SIGTERM)
    assert_ended(parent, 0)


def test_image_loses_no_signal_while_python_starts(start_first: StartFirst) -> None:
    """Its entry point blocks signals before Python starts."""
    *before, name = entry_point()
    assert name == "etl"
    pid, parent = start_first(*before, sys.executable, "-m", "etl", "run")
    assert eventually(lambda: blocks_sigterm(pid), seconds=10)
    os.kill(pid, signal.SIGTERM)
    assert_ended(parent, 0)
    _, parent = start_first(*before, sys.executable, "-m", "etl", "sync", "nowhere")
    assert_ended(parent, 2)


def assert_ended(process: "subprocess.Popen[str]", code: int) -> None:
    """Check that it ends within ten seconds, with this exit code."""
    _, err = process.communicate(timeout=10)
    assert process.returncode == code, err
    assert "Traceback" not in err


def test_sighup_ends_the_daemon_like_sigterm(start_etl: StartEtl, redis_client: redis.Redis) -> None:
    """Sent when its terminal is closed."""
    daemon = start_etl("run", **every(1))
    assert eventually(lambda: bool(redis_client.exists(HISTORY)))
    daemon.send_signal(signal.SIGHUP)
    assert end_of(daemon).code == 0
    assert not redis_client.exists(LEADER)


def test_daemon_under_nohup_ignores_sighup(environment: Mapping[str, str], redis_client: redis.Redis) -> None:
    command = ["nohup", sys.executable, "-m", "etl", "run"]
    variables = {**environment, **every(1)}
    with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as daemon:
        assert eventually(lambda: redis_client.llen(HISTORY) >= 1)
        daemon.send_signal(signal.SIGHUP)
        before = redis_client.llen(HISTORY)
        assert eventually(lambda: redis_client.llen(HISTORY) > before)
        daemon.terminate()
        daemon.communicate(timeout=10)
        assert daemon.returncode == 0


@pytest.mark.parametrize("arguments", ["config --json", "config", "--help", "sync --json", "sync"])
@pytest.mark.usefixtures("collection")
def test_unwritable_stdout_is_a_one_line_error(in_shell: "InShell", arguments: str) -> None:
    """As with a full disk: exit code 1, no traceback."""
    code, err = in_shell(f"{arguments} >{FULL}")
    assert (code, err) == (1, "error: cannot write to stdout: No space left on device\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("config --json >&-", 0),
        ("sync --json >&-", 0),
        ("sync >&- 2>&- <&-", 0),
        ("sync nowhere >&- 2>&- <&-", 2),
        (f"sync nowhere 2>{FULL}", 2),
        (f"sync nowhere --json >{FULL} 2>{FULL}", 2),
        (f"sync --verbose 2>{FULL}", 0),
        ("sync --verbose 2>&-", 0),
    ],
)
@pytest.mark.usefixtures("collection")
def test_closed_or_full_stream_does_not_change_the_exit_code(
    in_shell: "InShell", arguments: str, code: int
) -> None:
    """The command has done its work."""
    assert in_shell(arguments) == (code, "")


@pytest.mark.usefixtures("collection")
def test_signal_that_another_thread_receives_ends_the_daemon(start_etl: StartEtl) -> None:
    """The kernel chooses the thread. Python calls the handler in the main thread, which is waiting."""
    settings = every(60)
    process = start_etl("run", **settings)
    assert eventually(lambda: is_ready(url_of(settings)))
    other = sorted(int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir())[1]
    assert not blocks_sigterm(other)
    os.kill(other, signal.SIGTERM)
    assert end_of(process).code == 0


InShell = Callable[[str], tuple[int, str]]


@pytest.fixture
def in_shell(environment: Mapping[str, str], tmp_path: Path) -> InShell:
    """Run a command in a shell, with redirections; returns exit code and stderr."""

    def run(words: str) -> tuple[int, str]:
        line = f"exec '{sys.executable}' -m etl {words}"
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            cwd=tmp_path,
            env={**environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stderr

    return run


@pytest.mark.parametrize("streams", [">&- 2>&- <&-", f"2>{FULL}", "2>&1 | true"])
def test_daemon_with_an_unwritable_log_continues(
    environment: Mapping[str, str], tmp_path: Path, redis_client: redis.Redis, streams: str
) -> None:
    """SIGTERM ends it with exit code 0."""
    line = f"echo $BASHPID >pid; exec '{sys.executable}' -m etl --verbose run"
    code = f"({line}) {streams}"
    if "|" in streams:
        code = f"set -o pipefail; {code}"
    with subprocess.Popen(["/bin/bash", "-c", code], cwd=tmp_path, env={**environment, **every(1)}) as shell:
        assert eventually(lambda: redis_client.llen(HISTORY) >= 2)
        os.kill(int((tmp_path / "pid").read_text("ascii")), signal.SIGTERM)
        assert shell.wait(10) == 0
