"""The network holds a request back until its sender has given up, repeated it and gone on: then it delivers.

All under one lease, so that no fencing token tells the late request from a timely one.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from pymongo.collection import Collection

from etl.app import App
from etl.backfill import coordinator
from etl.cache.scripts import SCRIPTS
from etl.cache.writer import Applied, CacheWriter
from etl.checkpoint.checkpoint import CheckpointStore
from etl.demo import RedisServer
from tests.factories import written
from tests.support.pipeline import OpenApp, cycle
from tests.support.proxy import Proxy
from tests.support.redis_dump import held, values
from tests.support.truth import truth
from tests.support.types import Document, ProxyTo
from tests.support.waiting import eventually

TIMEOUT = 0.5
FUTURE = datetime(2099, 1, 1, tzinfo=UTC)
COMMIT = SCRIPTS["commit"].sha.encode()
FINISH = b"sync_duration_ms"  # which only the last step of a cycle records
APPLY = SCRIPTS["apply"].sha.encode()


@pytest.fixture
def proxy(proxy_to: ProxyTo, redis_server: RedisServer) -> Proxy:
    """The network between the application and Redis."""
    return proxy_to(redis_server)


@pytest.fixture
def app(open_app: OpenApp, proxy: Proxy, redis_url: str) -> App:
    """Gives up on an answer soon, and asks again for long; two documents a page."""
    return open_app(redis=proxy.through(redis_url), timeout=TIMEOUT, patience=10, page_size=2)


def claims(name: str, moment: datetime, texts: int) -> Document:
    """A document, and the keys of the campaign `contested`."""
    return {**written("contested", texts, moment), "_id": name}


def deliver(proxy: Proxy, client: redis.Redis) -> None:
    """Let what is held go, and wait until Redis has carried it out and seen its sender gone."""
    assert proxy.is_holding, "nothing was held back"
    before = ids(client)
    proxy.resume()
    assert eventually(lambda: bool(before - ids(client)))


def ids(client: redis.Redis) -> set[str]:
    """All connections of Redis."""
    return {one["id"] for one in client.client_list()}


def before_the_end(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Have `act` done when a cycle has applied everything, and still has its lease."""
    finish = CheckpointStore.finish

    def acted(self: CheckpointStore, *arguments: Any) -> None:
        act()
        finish(self, *arguments)

    monkeypatch.setattr(CheckpointStore, "finish", acted)


def test_a_batch_delivered_late_displaces_nothing_newer(
    collection: Collection[Document],
    redis_client: redis.Redis,
    proxy: Proxy,
    app: App,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its older value of a key does not displace the newer one, which was written since."""
    moment = datetime.now(UTC) - timedelta(seconds=60)
    collection.insert_many(claims(name, moment, number) for number, name in enumerate("abcd"))
    before_the_end(monkeypatch, lambda: deliver(proxy, redis_client))
    proxy.hold_at(APPLY)

    report = cycle(app)

    assert (report.status, report.records_processed) == ("ok", 4)
    assert held(redis_client) == truth(collection)


def test_a_commit_delivered_late_changes_nothing(
    collection: Collection[Document],
    redis_client: redis.Redis,
    proxy: Proxy,
    app: App,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It brings back no older claim, no dead letter that was cleared since, and no older place in the scan.

    The position does not tell it from a later commit: all is dated the same, or in the future.
    """
    moment = datetime.now(UTC) - timedelta(seconds=60)
    collection.insert_many(claims(name, moment, number) for number, name in enumerate("abcd"))
    collection.update_one({"_id": "b"}, {"$set": {"segmento": 5}})
    states: list[dict[str, Any]] = []

    def look_deliver_look() -> None:
        states.append(values(redis_client, but=":lease"))
        deliver(proxy, redis_client)
        states.append(values(redis_client, but=":lease"))

    monkeypatch.setattr(coordinator, "TASK_SECONDS", 0)  # a commit after each page, before the next is read
    mend_at_the_second_batch(monkeypatch, collection)
    before_the_end(monkeypatch, look_deliver_look)
    proxy.hold_at(COMMIT)

    report = cycle(app)

    assert (report.status, report.records_processed, report.dead_lettered) == ("ok", 4, 1)
    [before, after] = states
    assert after == before
    assert held(redis_client) == truth(collection)
    assert app.dead_letters("promptContent").list() == []


def mend_at_the_second_batch(monkeypatch: pytest.MonkeyPatch, collection: Collection[Document]) -> None:
    """Mend the document that was refused, so that the cycle under way meets it again."""
    apply, batches = CacheWriter.apply, 0

    def mending(self: CacheWriter, *arguments: Any) -> Applied:
        nonlocal batches
        batches += 1
        if batches == 2:
            collection.replace_one({"_id": "b"}, claims("b", FUTURE, 9))
        return apply(self, *arguments)

    monkeypatch.setattr(CacheWriter, "apply", mending)


@pytest.mark.parametrize("cycles", [1, 2])
def test_a_finish_delivered_late_is_recorded_once(
    collection: Collection[Document], redis_client: redis.Redis, proxy: Proxy, app: App, cycles: int
) -> None:
    """The run is in the history once, and the watermark is that of the last cycle."""
    collection.insert_one(written("first", 1, datetime.now(UTC) - timedelta(seconds=60)))
    proxy.hold_at(FINISH)
    for number in range(cycles):
        assert cycle(app).status == "ok"
        collection.insert_one(written(f"camp-{number}", 1, datetime.now(UTC) - timedelta(seconds=30)))
    before = values(redis_client, but=":lease")

    deliver(proxy, redis_client)

    assert values(redis_client, but=":lease") == before
    assert len(app.history("promptContent", 10)) == cycles
