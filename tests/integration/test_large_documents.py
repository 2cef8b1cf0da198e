"""A document larger than Redis or the settings allow is a dead letter, and the others are written."""

from typing import Any

import pytest
import redis
from bson import Decimal128
from pymongo.collection import Collection

from etl.app import App, BackfillOrder
from tests.factories import api, campaign, resultado_mcp
from tests.support.pipeline import NAME, Clock, OpenApp, sync
from tests.support.types import Document, StartRedis

MB = 1024 * 1024


def tool(name: str, updated_at: Any, result: Any) -> Document:
    """A `resultado_mcp`, which claims one hash."""
    return resultado_mcp(_id=name, server="s", tool=name, result=result, updated_at=updated_at)


def letters(app: App) -> dict[str, str]:
    """The reasons of the dead letters by `_id`."""
    return {letter.id.strip('"'): letter.reason for letter in app.dead_letters(NAME).list()}


def test_value_longer_than_redis_accepts_is_a_dead_letter(
    open_app: OpenApp, collection: Collection[Document], start_redis: StartRedis, clock: Clock
) -> None:
    """The server closes the connection if an argument is too long: a value, a key or a request.

    So the length is checked before it is sent, in every kind of run, and the other documents are written.
    """
    url = start_redis(args=("--proto-max-bulk-len", "1mb")).url
    now = clock.now()
    message = {"numero": 1, "texto": "ñ" * (MB // 2), "tono": "casual"}
    collection.insert_many(
        [
            tool("first", now, "x"),
            tool("value", now, "x" * (2 * MB)),
            tool("fits", now, "x" * (MB - 10)),
            campaign("member", now, _id="member", mensajes=[message]),
            campaign("request", now, _id="request", segmento="x" * MB, estado="pendiente"),
            api("x" * MB, now, _id="key"),
            tool("last", now, "x"),
        ]
    )
    with open_app(redis=url, patience=0.5) as app, redis.Redis.from_url(url) as client:
        report = sync(app)
        assert (report.records_processed, report.dead_lettered) == (3, 4)
        assert letters(app).keys() == {"value", "member", "request", "key"}
        assert set(letters(app).values()) == {
            "it has a value longer than Redis takes: proto-max-bulk-len is 1,048,576 bytes"
        }
        written = sorted(key.split(b":")[3] for key in client.scan_iter("mcp:tool:*"))
        assert written == [b"first", b"fits", b"last"]
        assert app.backfill(NAME, BackfillOrder(), lambda _: None).records_processed == 3
        assert app.refresh("mcp:tool").rejected == 1
        verified = app.verify(NAME)
        assert (verified.true, verified.invalid) == (True, 4)


def test_default_limit_applies_if_config_is_denied(
    open_app: OpenApp, collection: Collection[Document], start_redis: StartRedis, clock: Clock
) -> None:
    """Managed servers deny it."""
    server = start_redis()
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "etl", "on", ">secret", "~*", "+@all", "-config")
    collection.insert_one(tool("value", clock.now(), "x" * (2 * MB)))
    url = server.url.replace("redis://", "redis://etl:secret@")
    with open_app(redis=url, patience=0.5) as app:
        assert sync(app).records_processed == 1


def test_size_of_a_document_is_limited_by_a_setting(
    open_app: OpenApp, app: App, collection: Collection[Document], clock: Clock
) -> None:
    """A decimal of 16 bytes takes 6,001 in Redis, and 30,000 of them 180 MB, more than the default."""
    collection.insert_many(
        [
            tool("bomb", clock.now(), [Decimal128("1E+6000")] * 30_000),
            tool("one", clock.now(), Decimal128("1E+6000")),
        ]
    )
    report = sync(app)
    assert (report.records_processed, report.dead_lettered) == (1, 1)
    assert letters(app) == {"bomb": "its numbers would take more than 67,108,864 bytes of Redis"}

    with open_app(settings={"transform": {"document_bytes": 6000}}) as other:
        assert other.backfill(NAME, BackfillOrder(), lambda _: None).dead_lettered == 1
        assert letters(other)["one"] == "its numbers would take more than 6,000 bytes of Redis"


@pytest.mark.parametrize("unrelated", [{"mensajes": 1}, {"note": 1}])
def test_size_of_unrelated_fields_does_not_count(
    app: App, collection: Collection[Document], clock: Clock, unrelated: Document
) -> None:
    """Fields of no kind, or of another kind."""
    bomb = {name: [Decimal128("1E+6000")] * 30_000 for name in unrelated}
    collection.insert_one(api("p", clock.now()) | bomb)
    assert sync(app).records_processed == 1
