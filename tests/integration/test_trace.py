"""One line says why the keys of a document are there, or are not."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from pymongo.collection import Collection

from etl.cache.keys import state_keys
from etl.cli import ids
from tests.factories import api, campaign
from tests.support.pipeline import OpenApp, sync
from tests.support.types import Document

NAME = "promptContent"
NOW = datetime.now(UTC)
KEY = "config:api:p"

Change = Callable[[Collection[Document], redis.Redis], Any]


def provider(**changes: Any) -> Document:
    """The document whose story is told."""
    return api("p", NOW - timedelta(seconds=600), _id="d") | changes


def generation(**changes: Any) -> Document:
    """Another, of a campaign."""
    return campaign("c", NOW - timedelta(seconds=600), _id="d") | changes


def test_a_deletion_that_the_follower_has_not_applied_is_its_own(
    open_app: OpenApp,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The key is there, and no repair is needed."""
    collection.insert_one(provider())
    app = open_app()
    sync(app)
    collection.delete_one({"_id": "d"})
    redis_client.set(state_keys(NAME).follow_lease, "host:1", px=60_000)
    redis_client.hset(state_keys(NAME).follow, "caught_up", "0")
    monkeypatch.setattr("etl.verify.recheck._FOLLOWER_SECONDS", 0.1)
    story = app.trace(NAME, ids.readings("d")).story
    assert story == "not in MongoDB: no document has this _id; the follower removes its keys"


@pytest.mark.parametrize(
    ("document", "change", "story"),
    [
        (
            None,
            lambda *_: None,
            "not in MongoDB: no document has this _id; none of its keys is left",
        ),
        (
            provider(),
            lambda documents, _: documents.delete_one({"_id": "d"}),
            (
                "not in MongoDB: no document has this _id; keys that remain: 1; etl verify --repair"
                " removes them"
            ),
        ),
        (
            provider(status=5),
            lambda *_: None,
            "invalid: status should be text; it is not applied until it is valid",
        ),
        (
            provider(),
            lambda documents, _: documents.replace_one({"_id": "d"}, provider(updated_at=NOW, status="x")),
            "not yet reached: it changed after the read of the last cycle; the next cycle applies it",
        ),
        (
            provider(eliminado=True),
            lambda *_: None,
            "evicted: it is archived or marked as deleted, so its keys are removed on purpose",
        ),
        (
            generation(estado="archivado"),
            lambda *_: None,
            "evicted: it is archived or marked as deleted, so its keys are removed on purpose",
        ),
        (
            provider(updated_at=NOW - timedelta(seconds=7200)),
            lambda _, cache: cache.delete(KEY),
            "expired: it changed longer ago than the TTL of its keys; a change or a refresh writes them again",
        ),
        (
            provider(updated_at=None),
            lambda _, cache: cache.delete(KEY),
            "expired: it has no timestamp, so no cycle writes its keys; set one, or run etl backfill",
        ),
        (
            provider(),
            lambda _, cache: cache.hset(KEY, "status", "other"),
            (
                "overwritten: it was applied, and its key was changed by another program since; etl verify --repair"
                " writes it again"
            ),
        ),
        (
            provider(),
            lambda _, cache: cache.delete(KEY),
            (
                "lost: it was applied less than its TTL ago, but its key was removed by another program, or Redis"
                " evicted it; etl verify --repair writes it again"
            ),
        ),
        (provider(), lambda *_: None, "all well: its keys match it"),
        (generation(), lambda *_: None, "all well: its keys match it"),
        (
            generation(estado="pendiente"),
            lambda *_: None,
            "queued: it requests a generation and fills no key",
        ),
        (
            provider(updated_at=NOW - timedelta(seconds=900)),
            lambda documents, _: documents.insert_one(provider(_id="e")),
            'superseded: document "e" is newer and claims the same key, so it decides',
        ),
    ],
    ids=[
        *("gone", "hard-deleted", "invalid", "not reached", "tombstone", "archived", "expired", "undated"),
        *("overwritten", "lost", "well", "well without metadata", "queued", "superseded"),
    ],
)
def test_the_last_line_gives_the_reason(
    open_app: OpenApp,
    collection: Collection[Document],
    redis_client: redis.Redis,
    document: Document | None,
    change: Change,
    story: str,
) -> None:
    """In plain words, whatever has happened to the document or its key."""
    app = open_app()
    if document:
        collection.insert_one(document)
    sync(app)
    change(collection, redis_client)
    if story.startswith("superseded"):
        sync(app)
    assert app.trace(NAME, ids.readings("d")).story == story


def test_a_deferred_document_names_the_holder_of_the_lock(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """And how long that holds it yet; once it is free, the next cycle has its turn."""
    app = open_app()
    collection.insert_one(generation())
    redis_client.set("lock:content_generation:c", "host-1-aa", px=30_000)
    sync(app)
    told = app.trace(NAME, ids.readings("d"))
    assert told.deferred
    assert told.story == (
        "deferred: its campaign is being generated, lock:content_generation:c is held by host-1-aa for 30 s"
        " more; the first cycle after its release applies it"
    )
    redis_client.delete("lock:content_generation:c")
    assert app.trace(NAME, ids.readings("d")).story == (
        "deferred: it waited for lock:content_generation:c, which is free now; the next cycle applies it"
    )


def test_before_the_first_cycle_nothing_is_reached(
    open_app: OpenApp, collection: Collection[Document]
) -> None:
    """Whatever the document says."""
    collection.insert_one(provider())
    assert open_app().trace(NAME, ids.readings("d")).story.startswith("not yet reached: ")


def test_a_key_that_a_document_left_behind_is_shown(
    open_app: OpenApp, collection: Collection[Document]
) -> None:
    """It has moved, and nobody has removed its old key."""
    app = open_app()
    collection.insert_one(provider())
    sync(app)
    collection.update_one({"_id": "d"}, {"$set": {"provider_name": "q"}})
    told = app.trace(NAME, ids.readings("d"))
    assert [(one.key, one.role, one.verdict) for one in told.keys] == [
        ("config:api:q", "fills", "missing"),
        (KEY, "left", "orphaned"),
    ]


def test_an_id_is_found_as_it_is_typed(open_app: OpenApp, collection: Collection[Document]) -> None:
    """Of what the words may mean, the document that is there."""
    collection.insert_many([provider(_id=42), provider(_id="a b")])
    app = open_app()
    assert [app.trace(NAME, ids.readings(word)).id for word in ("42", "a b")] == ["42", '"a b"']
