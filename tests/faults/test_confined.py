"""Commands without a writable folder, as in a container with a read-only file system."""

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
"""More than a cold start processes without workers."""

Confined = Callable[..., Result]


@pytest.fixture
def run_confined(environment: Mapping[str, str]) -> Confined:
    """Run a command in a mount namespace after these mounts."""
    if not os.environ.get("CI") and subprocess.run([*NAMESPACE, "true"], check=False).returncode:
        pytest.skip("needs the permission to create a namespace")
    # Coverage could not write its data file.
    excluded = ("TMPDIR", "TEMP", "TMP", "COVERAGE_")
    variables = {name: value for name, value in environment.items() if not name.startswith(excluded)}

    def run(mounts: str, *words: str) -> Result:
        script = f'mount --make-rprivate /; {mounts} exec "$0" -m etl "$@"'
        command = [*NAMESPACE, "/bin/sh", "-c", script, sys.executable, *words]
        done = subprocess.run(
            command, env=variables, capture_output=True, text=True, check=False, timeout=120
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def many_documents(collection: Collection[Document]) -> None:
    """Documents of one kind, a millisecond apart."""
    now = datetime.now(UTC)
    collection.insert_many(api(f"p{n}", now - timedelta(milliseconds=n)) for n in range(MANY))


@pytest.mark.usefixtures("many_documents")
@pytest.mark.parametrize("mounts", [READ_ONLY, NO_SEMAPHORES], ids=["no temporary folder", "no semaphores"])
@pytest.mark.parametrize("words", [("sync",), ("backfill", "promptContent", "--workers", "2")])
def test_run_continues_without_workers_and_logs_it_once(
    run_confined: Confined, redis_client: redis.Redis, mounts: str, words: tuple[str, ...]
) -> None:
    """The fork server cannot create its socket, or a queue its semaphores."""
    result = run_confined(mounts, *words)
    assert result.code == 0, result
    assert redis_client.dbsize() > MANY
    assert result.err.count("cannot start worker processes (") == 1
    assert "going on without workers" in result.err
    assert "Traceback" not in result.err


@pytest.mark.usefixtures("many_documents")
def test_verification_needs_no_temporary_folder(run_confined: Confined) -> None:
    """Its findings stay in memory."""
    assert run_confined(READ_ONLY, "sync").code == 0
    result = run_confined(READ_ONLY, "verify", "promptContent")
    assert result.code == 0, result
    assert f"all keys match; {MANY:,} documents read" in result.out


@pytest.mark.usefixtures("collection")
@pytest.mark.parametrize("words", [("status",), ("doctor",), ("history",), ("config",), ("demo",)])
def test_only_the_demo_needs_a_temporary_folder(run_confined: Confined, words: tuple[str, ...]) -> None:
    """For its servers. The error is one line."""
    result = run_confined(READ_ONLY, *words)
    assert "Traceback" not in result.err
    assert "unforeseen" not in result.err
    if words == ("demo",):
        assert result.code == 1
        assert result.problems.count("\n") == 1
        assert "TMPDIR" in result.err
    else:
        assert result.code in {0, 3}, result
