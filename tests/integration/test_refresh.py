"""A refresh writes expired keys again, and never overwrites a newer value."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
import redis
from pymongo.collection import Collection

from etl.app import App
from etl.cache.writer import Applied, CacheWriter
from etl.errors import ConfigurationError
from etl.model.report import RefreshReport
from etl.mongo.reader import MongoReader
from schemas.documents import KINDS
from tests.factories import api, campaign
from tests.support.pipeline import Clock, OpenApp, sync
from tests.support.redis_dump import hash_at, held
from tests.support.truth import truth
from tests.support.types import Document

KEY = "config:api:p"
FAMILY = "ai:campaign_messages"


def claim(text: str, moment: datetime, **fields: Any) -> Document:
    """A document that claims `KEY`."""
    return api("p", moment, status=text, **fields)


@pytest.fixture
def statuses(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The status in `KEY` after each write."""
    values: list[str | None] = []
    real = CacheWriter.apply

    def apply(self: CacheWriter, changes: Mapping[str, Any], *arguments: Any) -> Applied:
        applied = real(self, changes, *arguments)
        values.extend([hash_at(redis_client, KEY).get("status")] * len(changes))
        return applied

    monkeypatch.setattr(CacheWriter, "apply", apply)
    return values


@pytest.mark.parametrize("page_size", [1, 2, 500])
def test_refresh_writes_only_the_newest_document_of_a_key(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    statuses: list[str | None],
    page_size: int,
) -> None:
    """So no reader sees values of older documents, with any page size."""
    collection.insert_many([claim(str(number), clock.ago(100 - number)) for number in range(10)])
    report = open_app(page_size=page_size).refresh("config:api")
    assert (report.written, statuses) == (1, ["9"])


def test_refresh_writes_an_expired_family_again(
    open_app: OpenApp, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """With the values of a cycle, although no delta reads the documents."""
    app = open_app(page_size=3)
    collection.insert_many([api(f"n{number % 7}", clock.ago(9000 - number)) for number in range(20)])
    sync(app)
    before = held(redis_client)
    redis_client.delete(*before)
    assert app.refresh("config:api").written == 7
    assert held(redis_client) == before == truth(collection)


def test_refresh_by_name_writes_one_entry(
    open_app: OpenApp, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    collection.insert_many([api(name, clock.ago(900)) for name in ("a", "b")])
    assert open_app().refresh("config:api", "b") == RefreshReport("config:api", "b", documents=1, written=1)
    assert set(held(redis_client)) == {"config:api:b"}


@pytest.mark.parametrize("name", ["Per\u00fa", "Peru\u0301"], ids=["composed", "decomposed"])
@pytest.mark.parametrize("stored", ["Per\u00fa", "Peru\u0301"], ids=["of composed", "of decomposed"])
def test_name_is_found_in_any_unicode_composition(
    app: App,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    stored: str,
    name: str,
) -> None:
    collection.insert_one(api(stored, clock.ago(900)))
    assert app.refresh("config:api", name) == RefreshReport("config:api", name, documents=1, written=1)
    assert set(held(redis_client)) == {"config:api:Per\u00fa"}


def test_refresh_by_name_of_a_family_without_names_is_refused(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the whole family would be refreshed."""
    kind = replace(KINDS["integracion_api"], name_field=None)
    monkeypatch.setattr("etl.app.KINDS", {kind.tipo: kind})
    with pytest.raises(ConfigurationError, match="have no names"):
        app.refresh("config:api", "openai")


def during_refresh(patch: pytest.MonkeyPatch, step: Any) -> list[bool]:
    """Call `step` once, after a refresh has read its first page and before it writes."""
    happened: list[bool] = []
    real = MongoReader.of_kind

    def of_kind(self: MongoReader, criteria: Any, limit: int) -> Iterator[list[bytes]]:
        for page in real(self, criteria, limit):
            if not happened:
                happened.append(True)
                step()
            yield page

    patch.setattr(MongoReader, "of_kind", of_kind)
    return happened


@pytest.mark.parametrize("seconds", [0, 60], ids=["at once", "committed late"])
def test_refresh_does_not_overwrite_what_a_cycle_applied(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    seconds: int,
) -> None:
    """A newer document was inserted, and applied by a cycle, between its read and its write."""
    collection.insert_one(claim("old", clock.ago(900)))
    app, other_app = open_app(), open_app()

    def newer() -> None:
        collection.insert_one(claim("new", clock.ago(seconds)))
        sync(other_app)
        assert hash_at(redis_client, KEY)["status"] == "new"

    happened = during_refresh(monkeypatch, newer)
    app.refresh("config:api")
    assert happened
    assert hash_at(redis_client, KEY)["status"] == "new"


def test_refresh_reads_a_document_again_that_a_cycle_applied(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The document was changed, and applied by a cycle, between the read and the write of the refresh."""
    collection.insert_one(claim("old", clock.ago(900), _id=1))
    app, other_app = open_app(), open_app()

    def change() -> None:
        collection.update_one({"_id": 1}, {"$set": {"status": "new", "updated_at": clock.now()}})
        sync(other_app)

    happened = during_refresh(monkeypatch, change)
    report = app.refresh("config:api")
    assert happened
    assert report.written == 1
    assert hash_at(redis_client, KEY)["status"] == "new"


def test_refresh_does_not_undo_a_tombstone(
    open_app: OpenApp, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """An older document does not restore the key."""
    collection.insert_many([claim("old", clock.ago(900)), claim("gone", clock.ago(300), eliminado=True)])
    redis_client.hset(KEY, "status", "stale")
    report = open_app(page_size=1).refresh("config:api")
    assert (report.written, report.evicted) == (0, 1)
    assert held(redis_client) == {}


def test_refresh_writes_an_older_document_after_a_hard_delete(
    open_app: OpenApp, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """A delta does not notice the delete."""
    collection.insert_many([claim("old", clock.ago(900)), claim("new", clock.ago(300), _id="new")])
    app = open_app(page_size=1)
    sync(app)
    collection.delete_one({"_id": "new"})
    assert hash_at(redis_client, KEY)["status"] == "new"
    app.refresh("config:api")
    assert hash_at(redis_client, KEY)["status"] == "old"


def test_refresh_defers_a_locked_campaign(
    open_app: OpenApp, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Other campaigns are written."""
    redis_client.set("lock:content_generation:c", "process_id_123")
    documents = [campaign("c", clock.ago(900)), campaign("c", clock.ago(300)), campaign("d", clock.ago(300))]
    collection.insert_many(documents)
    report = open_app(page_size=1).refresh(FAMILY)
    assert (report.written, report.deferred) == (1, 1)
    assert [key.split(":")[2] for key in redis_client.scan_iter("ai:*")] == ["d"]


def test_refresh_counts_invalid_documents(
    open_app: OpenApp, clock: Clock, collection: Collection[Document]
) -> None:
    """The others are written."""
    collection.insert_many([api("a", clock.ago(9), status=7), api("b", clock.ago(9))])
    report = open_app().refresh("config:api")
    assert (report.written, report.rejected) == (1, 1)
