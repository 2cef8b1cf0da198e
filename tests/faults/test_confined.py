"""A process that may write nowhere, as a container with a read-only file system: nothing may need a folder."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import pytest
import redis
from pymongo.collection import Collection

from tests.factories import api
from tests.support.command import Result
from tests.support.types import Document

NAMESPACE = ("/usr/bin/unshare", "--mount")
READ_ONLY = "for d in /tmp /var/tmp; do mount --bind $d $d && mount -o remount,ro,bind $d; done; cd /proc;"
NO_SEMAPHORES = "mount -t tmpfs -o ro none /dev/shm;"

MANY = 6_500
"""More than a cold start does without workers."""

Confined = Callable[..., Result]


@pytest.fixture
def confined(environment: Mapping[str, str]) -> Confined:
    """Run a command after these mounts, which nothing else sees."""
    if not os.environ.get("CI") and subprocess.run([*NAMESPACE, "true"], check=False).returncode:
        pytest.skip("it takes the right to make a namespace")
    # Coverage would write its figures where nothing can be written.
    left_out = ("TMPDIR", "TEMP", "TMP", "COVERAGE_")
    variables = {name: value for name, value in environment.items() if not name.startswith(left_out)}

    def run(mounts: str, *words: str) -> Result:
        script = f'mount --make-rprivate /; {mounts} exec "$0" -m etl "$@"'
        command = [*NAMESPACE, "/bin/sh", "-c", script, sys.executable, *words]
        done = subprocess.run(
            command, env=variables, capture_output=True, text=True, check=False, timeout=120
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def many(collection: Collection[Document]) -> None:
    """Documents of one kind, a second apart."""
    now = datetime.now(UTC)
    collection.insert_many(api(f"p{n}", now - timedelta(milliseconds=n)) for n in range(MANY))


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("mounts", [READ_ONLY, NO_SEMAPHORES], ids=["no temporary folder", "no semaphores"])
@pytest.mark.parametrize("words", [("sync",), ("backfill", "promptContent", "--workers", "2")])
def test_a_run_goes_on_without_workers_and_reports_it_once(
    confined: Confined, redis_client: redis.Redis, mounts: str, words: tuple[str, ...]
) -> None:
    """Where the fork server has no place for its socket, or its queues none for their locks."""
    result = confined(mounts, *words)
    assert result.code == 0, result
    assert redis_client.dbsize() > MANY
    assert result.err.count("cannot start worker processes (") == 1
    assert "going on without workers" in result.err
    assert "Traceback" not in result.err


@pytest.mark.usefixtures("many")
def test_a_verification_needs_no_temporary_folder(confined: Confined) -> None:
    """What it has found stays in memory."""
    assert confined(READ_ONLY, "sync").code == 0
    result = confined(READ_ONLY, "verify", "promptContent")
    assert result.code == 0, result
    assert f"all keys match; {MANY} documents read" in result.out


@pytest.mark.usefixtures("collection")
@pytest.mark.parametrize("words", [("status",), ("doctor",), ("history",), ("config",), ("demo",)])
def test_no_command_but_the_demo_needs_a_temporary_folder(confined: Confined, words: tuple[str, ...]) -> None:
    """But for the demonstration, whose servers need one: it says so in one line."""
    result = confined(READ_ONLY, *words)
    assert "Traceback" not in result.err
    assert "unforeseen" not in result.err
    if words == ("demo",):
        assert result.code == 1
        assert result.problems.count("\n") == 1
        assert "TMPDIR" in result.err
    else:
        assert result.code in {0, 3}, result
