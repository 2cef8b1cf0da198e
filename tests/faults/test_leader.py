"""Several daemons: one leads, and the others stand by."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from tests.support.command import StartEtl
from tests.support.daemons import HISTORY, LEADER, ended, every, leader
from tests.support.waiting import eventually

pytestmark = pytest.mark.timed

CONTAINER = ("/usr/bin/unshare", "--uts", "--pid", "--fork", "--kill-child")


def test_stopped_daemon_releases_the_leader_lease(start_etl: StartEtl, redis_client: redis.Redis) -> None:
    """So the next daemon need not stand by."""
    first = start_etl("run", **(every(600) | {"ETL_LEASE__SECONDS": "30"}))
    assert eventually(lambda: redis_client.llen(HISTORY) == 1)
    assert eventually(lambda: leader(redis_client) == first.pid)
    ended(first)
    assert not redis_client.exists(LEADER)

    second = start_etl("run", **(every(1) | {"ETL_LEASE__SECONDS": "30"}))
    assert eventually(lambda: redis_client.llen(HISTORY) >= 4, 15)
    assert {line["action"] for line in ended(second)}.isdisjoint({"standby", "trouble"})


def test_standby_daemon_names_the_leader_and_takes_over(
    start_etl: StartEtl, redis_client: redis.Redis
) -> None:
    """In one line. When the leader is stopped it leads within four thirds of a lease."""
    patient = {"ETL_LEASE__SECONDS": "3"}  # a busy machine must not cost the leader its lease
    first = start_etl("run", **every(1) | patient)
    assert eventually(lambda: leader(redis_client) == first.pid)
    second = start_etl("run", **every(1) | patient)
    time.sleep(2.5)
    ended(first)
    assert eventually(lambda: leader(redis_client) == second.pid, 5)
    lines = [line for line in ended(second) if line["action"] in {"standby", "leader", "skipped", "late"}]
    assert [line["action"] for line in lines] == ["standby", "leader"], lines
    assert f":{first.pid}:" in lines[0]["leader"]


def test_suspended_leader_stands_by(start_etl: StartEtl, redis_client: redis.Redis) -> None:
    """Another one has taken over meanwhile."""
    first = start_etl("run", **every(1))
    assert eventually(lambda: leader(redis_client) == first.pid)
    second = start_etl("run", **every(1))
    first.send_signal(signal.SIGSTOP)
    assert eventually(lambda: leader(redis_client) == second.pid, 10)
    first.send_signal(signal.SIGCONT)
    time.sleep(2)
    assert leader(redis_client) == second.pid
    assert "standby" in {line["action"] for line in ended(first)}


def test_one_of_two_containers_with_the_same_name_and_pid_leads(
    environment: Mapping[str, str], tmp_path: Path, redis_client: redis.Redis
) -> None:
    """Both are `etl:1`."""
    if not os.environ.get("CI") and subprocess.run([*CONTAINER, "true"], check=False).returncode:
        pytest.skip("needs the permission to create a namespace")
    command = [*CONTAINER, "/bin/sh", "-c", 'hostname etl && exec "$0" -m etl run', sys.executable]
    with ExitStack() as stack:
        for _ in range(2):
            variables = {**environment, **every(1)}
            daemon = subprocess.Popen(command, cwd=tmp_path, env=variables, stderr=subprocess.DEVNULL)
            stack.enter_context(daemon)
            stack.callback(daemon.kill)
        assert eventually(lambda: redis_client.llen(HISTORY) >= 2)
        assert eventually(lambda: str(redis_client.get(LEADER)).startswith("etl:1:"))
        before, began = redis_client.llen(HISTORY), time.monotonic()
        assert eventually(lambda: redis_client.llen(HISTORY) >= before + 5, 20)
        assert time.monotonic() - began > 3.5, "each of them runs its own cycles"
