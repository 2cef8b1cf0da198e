"""A refresh warms what has expired, and never puts an old value over a new one."""

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
    """A document that claims the one key."""
    return api("p", moment, status=text, **fields)


@pytest.fixture
def shown(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """What the one key says after each write of a refresh."""
    values: list[str | None] = []
    real = CacheWriter.apply

    def apply(self: CacheWriter, changes: Mapping[str, Any], *arguments: Any) -> Applied:
        applied = real(self, changes, *arguments)
        values.extend([hash_at(redis_client, KEY).get("status")] * len(changes))
        return applied

    monkeypatch.setattr(CacheWriter, "apply", apply)
    return values


@pytest.mark.parametrize("page_size", [1, 2, 500])
def test_the_newest_of_many_is_written_once(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    shown: list[str | None],
    page_size: int,
) -> None:
    """Older documents for the same key are passed over, wherever a page ends: no reader sees their values."""
    collection.insert_many([claim(str(number), clock.ago(100 - number)) for number in range(10)])
    report = open_app(page_size=page_size).refresh("config:api")
    assert (report.written, shown) == (1, ["9"])


def test_an_expired_family_is_filled_again(
    open_app: OpenApp, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """All its keys, as a cycle would have them, though no delta has their documents."""
    app = open_app(page_size=3)
    collection.insert_many([api(f"n{number % 7}", clock.ago(9000 - number)) for number in range(20)])
    sync(app)
    before = held(redis_client)
    redis_client.delete(*before)
    assert app.refresh("config:api").written == 7
    assert held(redis_client) == before == truth(collection)


def test_one_entry_is_refreshed_by_its_name(
    open_app: OpenApp, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """The others of its family stay as they are."""
    collection.insert_many([api(name, clock.ago(900)) for name in ("a", "b")])
    assert open_app().refresh("config:api", "b") == RefreshReport("config:api", "b", documents=1, written=1)
    assert set(held(redis_client)) == {"config:api:b"}


@pytest.mark.parametrize("typed", ["Per\u00fa", "Peru\u0301"], ids=["composed", "decomposed"])
@pytest.mark.parametrize("stored", ["Per\u00fa", "Peru\u0301"], ids=["of composed", "of decomposed"])
def test_a_name_is_found_in_any_unicode_composition(
    app: App,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    stored: str,
    typed: str,
) -> None:
    """Their key is the same."""
    collection.insert_one(api(stored, clock.ago(900)))
    assert app.refresh("config:api", typed) == RefreshReport("config:api", typed, documents=1, written=1)
    assert set(held(redis_client)) == {"config:api:Per\u00fa"}


def test_a_family_without_names_is_not_refreshed_by_name(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be refreshed as a whole."""
    kind = replace(KINDS["integracion_api"], name_field=None)
    monkeypatch.setattr("etl.app.KINDS", {kind.tipo: kind})
    with pytest.raises(ConfigurationError, match="have no names"):
        app.refresh("config:api", "openai")


def during_the_refresh(patch: pytest.MonkeyPatch, step: Any) -> list[bool]:
    """Have `step` happen once, after a refresh has read its first page and before it looks at Redis."""
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
def test_a_refresh_does_not_overwrite_what_a_cycle_applied(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    seconds: int,
) -> None:
    """A document that came after the refresh had begun to read, and was applied before it wrote."""
    collection.insert_one(claim("old", clock.ago(900)))
    app, beside = open_app(), open_app()

    def newer() -> None:
        collection.insert_one(claim("new", clock.ago(seconds)))
        sync(beside)
        assert hash_at(redis_client, KEY)["status"] == "new"

    happened = during_the_refresh(monkeypatch, newer)
    app.refresh("config:api")
    assert happened
    assert hash_at(redis_client, KEY)["status"] == "new"


def test_a_document_applied_by_a_cycle_is_read_again(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cycle that writes between the refresh's reading and its writing wins."""
    collection.insert_one(claim("old", clock.ago(900), _id=1))
    app, beside = open_app(), open_app()

    def change() -> None:
        collection.update_one({"_id": 1}, {"$set": {"status": "new", "updated_at": clock.now()}})
        sync(beside)

    happened = during_the_refresh(monkeypatch, change)
    report = app.refresh("config:api")
    assert happened
    assert report.written == 1
    assert hash_at(redis_client, KEY)["status"] == "new"


def test_a_refresh_does_not_undo_a_tombstone(
    open_app: OpenApp, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """What was deleted does not come back from an older document."""
    collection.insert_many([claim("old", clock.ago(900)), claim("gone", clock.ago(300), eliminado=True)])
    redis_client.hset(KEY, "status", "stale")
    report = open_app(page_size=1).refresh("config:api")
    assert (report.written, report.evicted) == (0, 1)
    assert held(redis_client) == {}


def test_the_key_of_a_deleted_document_is_refreshed_from_an_older_one(
    open_app: OpenApp, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Deleted after a cycle has written it, which no delta tells: the older one is written."""
    collection.insert_many([claim("old", clock.ago(900)), claim("new", clock.ago(300), _id="new")])
    app = open_app(page_size=1)
    sync(app)
    collection.delete_one({"_id": "new"})
    assert hash_at(redis_client, KEY)["status"] == "new"
    app.refresh("config:api")
    assert hash_at(redis_client, KEY)["status"] == "old"


def test_a_refresh_leaves_a_locked_campaign_alone(
    open_app: OpenApp, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Neither its newest document nor an older one is written; other campaigns are."""
    redis_client.set("lock:content_generation:c", "process_id_123")
    documents = [campaign("c", clock.ago(900)), campaign("c", clock.ago(300)), campaign("d", clock.ago(300))]
    collection.insert_many(documents)
    report = open_app(page_size=1).refresh(FAMILY)
    assert (report.written, report.deferred) == (1, 1)
    assert [key.split(":")[2] for key in redis_client.scan_iter("ai:*")] == ["d"]


def test_invalid_documents_are_counted(
    open_app: OpenApp, clock: Clock, collection: Collection[Document]
) -> None:
    """They stop nothing."""
    collection.insert_many([api("a", clock.ago(9), status=7), api("b", clock.ago(9))])
    report = open_app().refresh("config:api")
    assert (report.written, report.rejected) == (1, 1)
