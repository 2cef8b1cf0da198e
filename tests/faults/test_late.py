"""The network delivers a request after its sender has given up, repeated it and continued.

All under one lease, so that the fencing token of the late request is valid.
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
FINISH = b"sync_duration_ms"  # only the last step of a cycle records it
APPLY = SCRIPTS["apply"].sha.encode()


@pytest.fixture
def proxy(proxy_to: ProxyTo, redis_server: RedisServer) -> Proxy:
    """A proxy between the application and Redis."""
    return proxy_to(redis_server)


@pytest.fixture
def app(open_app: OpenApp, proxy: Proxy, redis_url: str) -> App:
    """An application with a short timeout, many retries, and pages of two documents."""
    return open_app(redis=proxy.through(redis_url), timeout=TIMEOUT, patience=10, page_size=2)


def claims(name: str, moment: datetime, texts: int) -> Document:
    """A document that claims the keys of the campaign `contested`."""
    return {**written("contested", texts, moment), "_id": name}


def deliver(proxy: Proxy, client: redis.Redis) -> None:
    """Deliver the held request, and wait until Redis has executed it and closed its connection."""
    assert proxy.is_holding, "no request was held"
    before = connection_ids(client)
    proxy.resume()
    assert eventually(lambda: bool(before - connection_ids(client)))


def connection_ids(client: redis.Redis) -> set[str]:
    """The ids of all connections of Redis."""
    return {one["id"] for one in client.client_list()}


def before_finish(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Call `act` when a cycle has applied everything and still holds its lease."""
    finish = CheckpointStore.finish

    def acted(self: CheckpointStore, *arguments: Any) -> None:
        act()
        finish(self, *arguments)

    monkeypatch.setattr(CheckpointStore, "finish", acted)


def test_batch_delivered_late_displaces_nothing_newer(
    collection: Collection[Document],
    redis_client: redis.Redis,
    proxy: Proxy,
    app: App,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Newer values of its keys were written meanwhile."""
    moment = datetime.now(UTC) - timedelta(seconds=60)
    collection.insert_many(claims(name, moment, number) for number, name in enumerate("abcd"))
    before_finish(monkeypatch, lambda: deliver(proxy, redis_client))
    proxy.hold_at(APPLY)

    report = cycle(app)

    assert (report.status, report.records_processed) == ("ok", 4)
    assert held(redis_client) == truth(collection)


def test_commit_delivered_late_changes_nothing(
    collection: Collection[Document],
    redis_client: redis.Redis,
    proxy: Proxy,
    app: App,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It restores no older claim, no removed dead letter, and no older cursor.

    All documents have one date or are in the future, so its position equals that of later commits.
    """
    moment = datetime.now(UTC) - timedelta(seconds=60)
    collection.insert_many(claims(name, moment, number) for number, name in enumerate("abcd"))
    collection.update_one({"_id": "b"}, {"$set": {"segmento": 5}})
    states: list[dict[str, Any]] = []

    def deliver_between_dumps() -> None:
        states.append(values(redis_client, but=":lease"))
        deliver(proxy, redis_client)
        states.append(values(redis_client, but=":lease"))

    monkeypatch.setattr(coordinator, "TASK_SECONDS", 0)  # a commit after each page, before the next is read
    correct_at_second_batch(monkeypatch, collection)
    before_finish(monkeypatch, deliver_between_dumps)
    proxy.hold_at(COMMIT)

    report = cycle(app)

    assert (report.status, report.records_processed, report.dead_lettered) == ("ok", 4, 1)
    [before, after] = states
    assert after == before
    assert held(redis_client) == truth(collection)
    assert app.dead_letters("promptContent").list() == []


def correct_at_second_batch(monkeypatch: pytest.MonkeyPatch, collection: Collection[Document]) -> None:
    """Correct the rejected document, so that the running cycle reads it again."""
    apply, batches = CacheWriter.apply, 0

    def correcting(self: CacheWriter, *arguments: Any) -> Applied:
        nonlocal batches
        batches += 1
        if batches == 2:
            collection.replace_one({"_id": "b"}, claims("b", FUTURE, 9))
        return apply(self, *arguments)

    monkeypatch.setattr(CacheWriter, "apply", correcting)


@pytest.mark.parametrize("cycles", [1, 2])
def test_finish_delivered_late_is_recorded_once(
    collection: Collection[Document], redis_client: redis.Redis, proxy: Proxy, app: App, cycles: int
) -> None:
    """In the history; the watermark is that of the last cycle."""
    collection.insert_one(written("first", 1, datetime.now(UTC) - timedelta(seconds=60)))
    proxy.hold_at(FINISH)
    for number in range(cycles):
        assert cycle(app).status == "ok"
        collection.insert_one(written(f"camp-{number}", 1, datetime.now(UTC) - timedelta(seconds=30)))
    before = values(redis_client, but=":lease")

    deliver(proxy, redis_client)

    assert values(redis_client, but=":lease") == before
    assert len(app.history("promptContent", 10)) == cycles
