"""Redis behind Sentinel: the primary is killed or frozen while documents are written."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pymongo.collection import Collection

from etl.app import App, BackfillOrder
from etl.demo.process import HOST
from tests.factories import api
from tests.support.command import StartEtl
from tests.support.daemons import ended, every, is_ready, key, provider, url_of
from tests.support.pipeline import NAME, OpenApp, sync
from tests.support.redis_dump import held
from tests.support.sentinel import DOWN_SECONDS, PASSWORD, SENTINEL_PASSWORD, Watched, start_sentinel
from tests.support.tls import certificates, tls_in_front_of, tls_or_plain_in_front_of
from tests.support.truth import truth
from tests.support.types import Document
from tests.support.waiting import eventually


@pytest.fixture
def watched() -> Iterator[Watched]:
    """A primary with a replica, and three Sentinels."""
    with start_sentinel() as watched:
        yield watched


@pytest.fixture
def open_watched(open_app: OpenApp, watched: Watched) -> Callable[..., App]:
    """Open an application on the Redis behind Sentinel, with a lease longer than usual for the failover."""
    lease = {"lease": {"seconds": 2}}

    def opened(*, patience: float = 20, **redis: Any) -> App:
        section = {"redis": watched.settings() | redis}
        return open_app(patience=patience, page_size=20, settings=lease | section)

    return opened


@pytest.mark.timed
def test_daemon_recovers_from_a_frozen_primary(
    collection: Collection[Document],
    watched: Watched,
    start_etl: StartEtl,
) -> None:
    """Within the timeout of the Sentinels plus ten seconds; nothing is missing."""
    redis = watched.settings()
    collection.insert_many([provider(number) for number in range(1_500)])
    options = every(1) | {
        "ETL_REDIS__URL": redis["url"],
        "ETL_REDIS__SENTINEL__SERVICE": redis["sentinel"]["service"],
        "ETL_REDIS__SENTINEL__NODES": json.dumps(redis["sentinel"]["nodes"]),
        "ETL_REDIS__SENTINEL__PASSWORD": redis["sentinel"]["password"],
        "ETL_REDIS__TIMEOUT_SECONDS": "1",
        "ETL_COLLECTIONS": json.dumps([{"name": NAME, "page_size": 20}]),
    }
    daemon = start_etl("run", **options)
    old = watched.primary()
    with watched.client() as client:
        assert eventually(lambda: bool(client.exists(key(0))))
        assert not client.exists(key(1_499)), "the cycle has ended already"
    old.pause()
    frozen = time.monotonic()
    collection.insert_one(provider(1_500))
    assert eventually(lambda: watched.primary() is not old)
    with watched.client() as client:
        assert eventually(lambda: bool(client.exists(key(1_500))), 60)
        assert eventually(lambda: is_ready(url_of(options)))
        seconds = time.monotonic() - frozen
        assert seconds < DOWN_SECONDS + 10, seconds
        old.resume()
        ended(daemon)
        assert held(client) == truth(collection)


def test_backfill_survives_a_failover(
    open_watched: Callable[..., App], collection: Collection[Document], watched: Watched
) -> None:
    """The run succeeds; after a reconciliation nothing is missing, and each request is queued once."""
    now = datetime.now(UTC)
    collection.insert_many([api(f"p{n}", now, _id=n) for n in range(5_200)])
    collection.insert_many(
        [
            {"_id": f"r{n}", "campana_id": f"c{n}", "segmento": "s", "estado": "pendiente", "updated_at": now}
            for n in range(200)
        ]
    )
    old, killed = watched.primary(), threading.Event()

    def kill(report: Any) -> None:
        if report.records_processed > 1_000 and not killed.is_set():
            killed.set()
            old.kill()

    with open_watched() as app:
        report = app.backfill(NAME, BackfillOrder(), kill)
        assert killed.is_set()
        assert watched.primary() is not old
        assert report.status == "ok", report.error
        app.verify(NAME, repair=True)
        assert app.verify(NAME).true
    with watched.client() as client:
        assert held(client) == truth(collection)


@pytest.mark.usefixtures("collection")
def test_wrong_sentinel_setting_is_a_one_line_error(
    open_watched: Callable[..., App], watched: Watched
) -> None:
    """With the setting and without secrets."""
    section = watched.settings()
    cases = [({"password": "wrong"}, 2, "redis.sentinel.password"), ({"service": "other"}, 1, ".service")]
    for changes, status, words in cases:
        with open_watched(patience=0.5, sentinel=section["sentinel"] | changes) as app:
            [report] = app.sync()
        error = str(report.error)
        assert report.exit_code == status, error
        assert words in error
        assert "\n" not in error
        assert not any(secret in error for secret in (PASSWORD, SENTINEL_PASSWORD, "wrong"))


def test_sentinels_and_primaries_use_tls(
    open_app: OpenApp, collection: Collection[Document], tmp_path: Path
) -> None:
    """With `rediss://`, also the new primary after a failover. An unknown authority is refused in one line."""
    trusted, unknown = certificates(tmp_path / "trusted"), certificates(tmp_path / "unknown")
    encrypted: dict[int, threading.Event] = {}

    def in_front_of(port: int) -> AbstractContextManager[int]:
        return tls_or_plain_in_front_of(port, trusted.server, encrypted)

    with start_sentinel(in_front_of) as watched, ExitStack() as stack:
        section = watched.settings()
        nodes = [stack.enter_context(tls_in_front_of(one.port, trusted.server)) for one in watched.sentinels]
        section["sentinel"]["nodes"] = [f"{HOST}:{port}" for port in nodes]

        def opened(authority: Path) -> App:
            url = f"{section['url'].replace('redis', 'rediss', 1)}?ssl_ca_certs={authority}"
            return open_app(patience=20, settings={"redis": section | {"url": url}})

        collection.insert_one(provider(1))
        [refused] = opened(unknown.authority).sync()
        assert (refused.status, refused.exit_code) == ("failed", 2), refused.error
        assert "ssl_ca_certs" in str(refused.error)
        assert "\n" not in str(refused.error)
        app = opened(trusted.authority)
        sync(app)
        old = watched.primary()
        assert [port for port, event in encrypted.items() if event.is_set()] == [old.port]
        old.kill()
        collection.insert_one(provider(2))
        sync(app)
        assert watched.primary() is not old
        assert encrypted[watched.primary().port].is_set()
        with watched.client() as client:
            assert held(client) == truth(collection)
