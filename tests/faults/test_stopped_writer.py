"""A worker that is suspended for longer than the deadline writes nothing stale afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from pymongo.collection import Collection

from etl.cache import writer
from etl.cache.keys import owner_key, record_key, requests_key
from tests.factories import api, campaign
from tests.support.pipeline import OpenApp, cycle
from tests.support.redis_dump import held
from tests.support.truth import truth
from tests.support.types import Document
from tests.support.waiting import eventually

DEADLINE = 1.0
LONG_AGO = datetime.now(UTC) - timedelta(seconds=300)
QUEUE = "queue:ai_generation:alta"

Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a worker that pauses at the given step; this process has the same deadline."""
    monkeypatch.setattr(writer, "DEADLINE_SECONDS", DEADLINE)
    with ExitStack() as stack:

        def started(where: str) -> "subprocess.Popen[str]":
            command = [sys.executable, "-m", "tests.support.slow_writer", f"{DEADLINE}", where]
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.callback(process.kill)
            assert process.stdout is not None
            stack.callback(process.stdout.close)
            assert process.stdout.readline() == f"{where}\n"
            return process

        yield started


def resume(process: "subprocess.Popen[str]") -> Any:
    """Let a suspended worker continue; returns its counts."""
    os.kill(process.pid, signal.SIGCONT)
    counts, _ = process.communicate("go on\n", 30)
    assert process.returncode == 0
    return json.loads(counts)


@pytest.mark.parametrize("where", ["read", "recorded"])
@pytest.mark.parametrize("registers", ["kept", "expired"])
def test_worker_suspended_past_the_deadline_writes_nothing_stale(
    collection: Collection[Document],
    redis_client: redis.Redis,
    open_app: OpenApp,
    start: Start,
    where: str,
    registers: str,
) -> None:
    """Its documents were changed, moved, evicted, deleted and archived meanwhile; also without registers."""
    asked = campaign("q", LONG_AGO, _id="asked", estado="pendiente", prioridad="alta")
    names = ("changed", "moved", "evicted", "deleted", "still")
    collection.insert_many([*(api(name, LONG_AGO, _id=name) for name in names), asked])
    process = start(where)
    os.kill(process.pid, signal.SIGSTOP)

    now = LONG_AGO + timedelta(seconds=200)
    collection.update_one({"_id": "changed"}, {"$set": {"status": "new", "updated_at": now}})
    collection.update_one({"_id": "moved"}, {"$set": {"provider_name": "elsewhere", "updated_at": now}})
    collection.update_one({"_id": "evicted"}, {"$set": {"eliminado": True, "updated_at": now}})
    collection.delete_one({"_id": "deleted"})
    collection.update_one({"_id": "asked"}, {"$set": {"estado": "archivado", "updated_at": now}})
    assert cycle(open_app()).status == "ok"
    expected = truth(collection)
    assert held(redis_client) == expected
    time.sleep(DEADLINE + 0.2)
    if registers == "expired":
        for pattern in (owner_key("*"), record_key("*"), requests_key("*")):
            for key in redis_client.scan_iter(pattern):
                redis_client.delete(key)

    counts = resume(process)

    assert held(redis_client) == expected
    assert not redis_client.exists(QUEUE)
    assert counts["enqueued"] == 0


def test_worker_suspended_within_the_deadline_continues(
    collection: Collection[Document], redis_client: redis.Redis, start: Start
) -> None:
    """Its read is still valid, if no other worker has written the document meanwhile."""
    collection.insert_one(api("a", LONG_AGO, _id="a"))
    process = start("read")
    os.kill(process.pid, signal.SIGSTOP)
    assert eventually(lambda: not redis_client.exists("config:api:a"), seconds=0.1)
    assert resume(process) == {"processed": 1, "enqueued": 0}
    assert held(redis_client) == truth(collection)
