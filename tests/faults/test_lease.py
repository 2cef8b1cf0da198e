import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
import redis
from pymongo import MongoClient
from pymongo.collection import Collection

from etl.cache.scripts import SCRIPTS
from etl.demo import RedisServer
from tests.factories import delta, written
from tests.support.command import Etl, StartEtl, end_of
from tests.support.failpoint import fail_command
from tests.support.pipeline import LEASE, OpenApp, cycle
from tests.support.proxy import Proxy
from tests.support.redis_dump import held, values
from tests.support.truth import truth
from tests.support.types import Document, ProxyTo
from tests.support.waiting import eventually

SHORT = {"ETL_LEASE__SECONDS": "1", "ETL_COLLECTIONS": '[{"name": "promptContent", "page_size": 10}]'}

HOST = re.escape(socket.gethostname())

# The scripts of a batch. The first two are refused if a newer version was written, the last one by its fence.
STEPS = {name: SCRIPTS[name].sha.encode() for name in ("record", "apply", "commit")}


class SuspendedSync(NamedTuple):
    """A real `etl sync` that is suspended while its last request is on the way to Redis."""

    process: "subprocess.Popen[str]"
    proxy: Proxy

    def resume(self) -> None:
        """Deliver its request, and let it continue."""
        self.proxy.resume()
        self.process.send_signal(signal.SIGCONT)


SuspendSync = Callable[[bytes], SuspendedSync]


@pytest.fixture
def suspend_sync(
    start_etl: StartEtl, proxy_to: ProxyTo, redis_server: RedisServer, redis_url: str
) -> SuspendSync:
    """Start a sync, and suspend it when it has sent `needle`, which is not delivered yet."""
    proxy = proxy_to(redis_server)

    def start(needle: bytes) -> SuspendedSync:
        proxy.hold_at(needle)
        process = start_etl("sync", **SHORT, ETL_REDIS__URL=proxy.through(redis_url))
        assert eventually(lambda: proxy.is_holding)
        process.send_signal(signal.SIGSTOP)
        return SuspendedSync(process, proxy)

    return start


def state(client: redis.Redis) -> dict[str, Any]:
    """All state keys except the history and the owner registers, which have times."""
    return values(client, "{*", but=(":history", ":owner"))


@pytest.mark.parametrize("step", STEPS)
def test_suspended_sync_writes_nothing_after_its_lease_expired(
    collection: Collection[Document],
    redis_client: redis.Redis,
    suspend_sync: SuspendSync,
    open_app: OpenApp,
    step: str,
) -> None:
    """Another sync writes newer versions meanwhile. The suspended one ends with exit code 1 and one line.

    Its request arrives late, at any of the three steps of a batch, and changes neither keys, queues nor the
    checkpoint.
    """
    collection.insert_many(delta(30))
    suspended = suspend_sync(STEPS[step])
    for number in range(0, 30, 2):
        newer = written(f"camp-{number}", 2, datetime.now(UTC))
        collection.replace_one({"_id": newer["_id"]}, newer)
    assert eventually(lambda: not redis_client.exists(LEASE))
    assert cycle(open_app()).status == "ok"
    before = state(redis_client)

    suspended.resume()
    result = end_of(suspended.process)

    assert result.code == 1
    assert re.match(
        rf"error: promptContent: lost the lease: {HOST}:\d+:\w+ has taken over$",
        result.problems,
        re.MULTILINE,
    )
    assert result.problems.count("\n") == 1
    assert held(redis_client) == truth(collection)
    assert state(redis_client) == before


def test_long_cycle_keeps_its_lease(
    collection: Collection[Document],
    mongo_client: MongoClient[Document],
    redis_client: redis.Redis,
    start_etl: StartEtl,
    etl: Etl,
) -> None:
    """MongoDB answers after more than twice the length of the lease; a second sync ends with exit code 75.

    Its error names the holder in one line, and the holder succeeds.
    """
    collection.insert_many(delta(30))
    slow: dict[str, Any] = {"blockConnection": True, "blockTimeMS": 10_000, "appName": "promptcontent-etl"}

    with fail_command(mongo_client, "find", **slow) as failure:
        first = start_etl("sync", **SHORT)
        assert eventually(lambda: failure.injected() == 1)
        time.sleep(2)
        second = etl("sync", **SHORT)
        assert first.poll() is None

    assert second.code == 75
    assert re.match(rf"error: promptContent: {HOST}:{first.pid}:\w+ is at work on it \(", second.problems)
    assert second.problems.count("\n") == 1
    assert end_of(first).code == 0
    assert held(redis_client) == truth(collection)


def test_lease_of_a_killed_sync_expires(
    collection: Collection[Document], redis_client: redis.Redis, suspend_sync: SuspendSync, open_app: OpenApp
) -> None:
    """Others are refused until then."""
    collection.insert_many(delta(30))
    suspended = suspend_sync(STEPS["commit"])
    suspended.process.kill()
    app = open_app()

    [report] = app.sync()
    assert (report.status, report.exit_code) == ("locked", 75)
    assert f":{suspended.process.pid}:" in str(report.error)
    assert 0 < int(redis_client.pttl(LEASE)) <= 1000
    assert cycle(app).status == "ok"

    assert held(redis_client) == truth(collection)


def test_one_of_six_concurrent_syncs_processes_the_documents(
    collection: Collection[Document], redis_client: redis.Redis, open_app: OpenApp
) -> None:
    """Each document is processed once."""
    collection.insert_many(delta(300))

    with ThreadPoolExecutor(6) as pool:
        reports = [
            report for [report] in pool.map(lambda app: list(app.sync()), [open_app() for _ in range(6)])
        ]

    assert {report.status for report in reports} == {"ok", "locked"}
    assert sum(report.records_processed for report in reports) == 300
    assert held(redis_client) == truth(collection)
