"""`etl trace`: one line explains the state of the keys of a document."""

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
    """The traced document."""
    return api("p", NOW - timedelta(seconds=600), _id="d") | changes


def generation(**changes: Any) -> Document:
    """A traced document of a campaign."""
    return campaign("c", NOW - timedelta(seconds=600), _id="d") | changes


def test_deletion_before_the_follower_applied_it_has_its_own_outcome(
    open_app: OpenApp,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The key exists, but no repair is needed."""
    collection.insert_one(provider())
    app = open_app()
    sync(app)
    collection.delete_one({"_id": "d"})
    redis_client.set(state_keys(NAME).follow_lease, "host:1", px=60_000)
    redis_client.hset(state_keys(NAME).follow, "caught_up", "0")
    monkeypatch.setattr("etl.verify.recheck._FOLLOWER_SECONDS", 0.1)
    story = app.trace(NAME, ids.possible_ids("d")).story
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
def test_story_explains_the_outcome(
    open_app: OpenApp,
    collection: Collection[Document],
    redis_client: redis.Redis,
    document: Document | None,
    change: Change,
    story: str,
) -> None:
    """For each outcome."""
    app = open_app()
    if document:
        collection.insert_one(document)
    sync(app)
    change(collection, redis_client)
    if story.startswith("superseded"):
        sync(app)
    assert app.trace(NAME, ids.possible_ids("d")).story == story


def test_story_of_a_deferred_document_names_the_holder_of_the_lock(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """And the remaining time. Once the lock is released, the next cycle applies the document."""
    app = open_app()
    collection.insert_one(generation())
    redis_client.set("lock:content_generation:c", "host-1-aa", px=30_000)
    sync(app)
    trace = app.trace(NAME, ids.possible_ids("d"))
    assert trace.deferred
    assert trace.story == (
        "deferred: its campaign is being generated, lock:content_generation:c is held by host-1-aa for 30 s"
        " more; the first cycle after its release applies it"
    )
    redis_client.delete("lock:content_generation:c")
    assert app.trace(NAME, ids.possible_ids("d")).story == (
        "deferred: it waited for lock:content_generation:c, which is free now; the next cycle applies it"
    )


def test_story_before_the_first_cycle_is_not_yet_reached(
    open_app: OpenApp, collection: Collection[Document]
) -> None:
    collection.insert_one(provider())
    assert open_app().trace(NAME, ids.possible_ids("d")).story.startswith("not yet reached: ")


def test_trace_shows_a_key_that_the_document_does_not_claim_any_more(
    open_app: OpenApp, collection: Collection[Document]
) -> None:
    """It has moved, and its old key has not been removed."""
    app = open_app()
    collection.insert_one(provider())
    sync(app)
    collection.update_one({"_id": "d"}, {"$set": {"provider_name": "q"}})
    trace = app.trace(NAME, ids.possible_ids("d"))
    assert [(one.key, one.role, one.verdict) for one in trace.keys] == [
        ("config:api:q", "fills", "missing"),
        (KEY, "left", "orphaned"),
    ]


def test_trace_finds_the_document_by_any_reading_of_the_id(
    open_app: OpenApp, collection: Collection[Document]
) -> None:
    collection.insert_many([provider(_id=42), provider(_id="a b")])
    app = open_app()
    assert [app.trace(NAME, ids.possible_ids(word)).id for word in ("42", "a b")] == ["42", '"a b"']
