"""The network to a server breaks, stalls or drops packets during a cycle."""

import os
import subprocess
import threading
import time
from typing import Any

import pytest
import redis
from pymongo.collection import Collection

from etl.app import App
from etl.cache.writer import Applied, CacheWriter
from etl.demo import MongoServer, RedisServer
from tests.factories import delta
from tests.support.command import StartEtl, end_of
from tests.support.pipeline import OpenApp, cycle
from tests.support.proxy import Proxy, Way
from tests.support.redis_dump import held
from tests.support.truth import truth
from tests.support.types import Document, ProxyTo

LONG = bool(os.environ.get("LONG_RUNS"))

Line = tuple[Proxy, dict[str, Any]]
"""A proxy to a server, and the address through it as an argument of `open_app`."""


@pytest.fixture(params=["mongo", "redis"])
def line(
    request: pytest.FixtureRequest,
    proxy_to: ProxyTo,
    mongod: MongoServer,
    redis_server: RedisServer,
    redis_url: str,
) -> Line:
    """The proxy to MongoDB or to Redis."""
    server, address = (mongod, mongod.uri) if request.param == "mongo" else (redis_server, redis_url)
    proxy = proxy_to(server)
    return proxy, {request.param: proxy.through(address)}


@pytest.fixture
def documents(collection: Collection[Document]) -> Collection[Document]:
    """Documents for ten pages."""
    collection.insert_many(delta(100))
    return collection


def opened(open_app: OpenApp, line: Line, *, patience: float, timeout: float = 1) -> App:
    """An application behind that proxy."""
    return open_app(**line[1], patience=patience, timeout=timeout)


@pytest.mark.parametrize("way", ["requests", "answers"])
@pytest.mark.parametrize("offset", [1, 500, 1_500, 3_000])
def test_cycle_survives_a_broken_connection(
    line: Line,
    documents: Collection[Document],
    redis_client: redis.Redis,
    open_app: OpenApp,
    way: Way,
    offset: int,
) -> None:
    """After `offset` bytes of requests or answers. Nothing is missing or queued twice."""
    proxy, _ = line
    proxy.drop_after(offset, way)
    report = cycle(opened(open_app, line, patience=10))
    assert proxy.dropped > 0, "nothing broke"
    assert report.status == "ok"
    assert held(redis_client) == truth(documents)


@pytest.mark.parametrize("way", ["requests", "answers"])
def test_cycle_that_failed_without_retries_is_completed_by_the_next(
    line: Line, documents: Collection[Document], redis_client: redis.Redis, open_app: OpenApp, way: Way
) -> None:
    """The next cycle runs in another application."""
    proxy, _ = line
    for broken, offset in enumerate((500, 1_000, 2_000), start=1):
        proxy.drop_after(offset, way)
        cycle(opened(open_app, line, patience=0.001))
        assert proxy.dropped >= broken, "nothing broke"
        proxy.resume()
        assert cycle(open_app()).status == "ok"
        assert held(redis_client) == truth(documents)
        redis_client.flushdb()


@pytest.mark.parametrize("fault", ["cut", "stall", "deafen"])
def test_cycle_survives_an_outage(
    line: Line,
    documents: Collection[Document],
    redis_client: redis.Redis,
    open_app: OpenApp,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a second, longer than the timeout, after a few batches."""
    proxy, _ = line
    apply, batches = CacheWriter.apply, 0

    def apply_after_fault(self: CacheWriter, *arguments: Any) -> Applied:
        nonlocal batches
        batches += 1
        if batches == 4:
            getattr(proxy, fault)()
            threading.Timer(1, proxy.resume).start()
        return apply(self, *arguments)

    monkeypatch.setattr(CacheWriter, "apply", apply_after_fault)
    began = time.monotonic()
    report = cycle(opened(open_app, line, patience=15, timeout=0.5))
    assert batches >= 4
    assert time.monotonic() - began > 0.5, "there was no outage"
    assert (report.status, report.error) == ("ok", None)
    assert held(redis_client) == truth(documents)


def test_command_gives_up_on_a_server_that_never_answers(
    start_etl: StartEtl,
    proxy_to: ProxyTo,
    mongod: MongoServer,
    redis_server: RedisServer,
    redis_url: str,
) -> None:
    """With address and reason; with LONG_RUNS=1 after the default of 20 seconds."""
    short = {"RETRY__SECONDS": "4", "MONGO__TIMEOUT_SECONDS": "2", "REDIS__TIMEOUT_SECONDS": "2"}
    times = {} if LONG else {f"ETL_{name}": value for name, value in short.items()}
    least = 15 if LONG else 3
    lines: list[tuple[Proxy, subprocess.Popen[str]]] = []
    began = time.monotonic()
    for variable, server, address in (
        ("ETL_MONGO__URI", mongod, mongod.uri),
        ("ETL_REDIS__URL", redis_server, redis_url),
    ):
        proxy = proxy_to(server)
        proxy.deafen()
        lines.append((proxy, start_etl("sync", **{variable: proxy.through(address)}, **times)))
    for proxy, process in lines:
        result = end_of(process)
        assert least < time.monotonic() - began < least + 25  # a busy machine starts a process slowly
        assert result.code == 1
        assert result.problems.count("\n") == 1
        assert f"127.0.0.1:{proxy.port} does not answer" in result.err
        assert proxy.swallowed > 0, "it was never asked"
