"""`etl trace` as a person types it."""

from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from bson import Binary, Decimal128, Int64
from pymongo.collection import Collection

from schemas.ids import id_text
from tests.factories import api
from tests.support.command import Etl
from tests.support.types import Document

NAME = "promptContent"


def test_everything_that_is_known_is_told(
    etl: Etl, typed: Etl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """The keys with their TTL and what is wrong, the dead letter with its fields; the last line says why."""
    now = datetime.now(UTC)
    collection.insert_many([api("p", now, _id="d"), api("q", now, _id="e", status=5)])
    assert typed("sync").code == 0
    redis_client.hset("config:api:p", "more", "1")
    told = etl("trace", NAME, "d")
    assert (told.code, told.err) == (0, "")
    assert "  in MongoDB    yes\n" in told.out
    assert "  fills         config:api:p: hash, " in told.out
    assert ' s left; different, field "more" should not exist: "1"\n' in told.out
    assert "  watermark     has passed it\n" in told.out
    assert told.out.splitlines()[-1].startswith(
        "overwritten: it was applied, and its key was changed by another program"
    )
    answer = etl("trace", NAME, "e", "--json").json
    assert (answer["outcome"], answer["dead_letter"]["attempts"]) == ("invalid", 1)
    assert answer["errors"] == [{"field": "status", "problem": "should be text"}]


STORED: list[Any] = [
    *(Int64(43), 44.0, Decimal128("45"), Decimal128("46.00"), Int64(-5), "12345678901234567890"),
    *(Binary(bytes(range(16)), 4), "4" * 24, {"a": Int64(1)}),
]
TYPED = [
    *(["43"], ["44"], ["45"], ["46"], ["--", "-5"], ["12345678901234567890"]),
    *(["00010203-0405-0607-0809-0a0b0c0d0e0f"], ["4" * 24], ['{"a": 1}']),
]


def test_a_document_is_found_by_its_id_as_people_type_it(
    typed: Etl, collection: Collection[Document]
) -> None:
    """Whatever the type of a number in MongoDB; as a document, and as a dead letter."""
    now = datetime.now(UTC)
    collection.insert_many([api(f"p{n}", now, _id=stored, status=5) for n, stored in enumerate(STORED)])
    assert typed("sync").code == 0
    for words, stored in zip(TYPED, STORED, strict=True):
        told = typed("trace", "--json", NAME, *words).json
        assert (told["found"], told["outcome"], told["dead_letter"]["id"]) == (
            True,
            "invalid",
            id_text(stored),
        )
        shown = typed("dead-letters", "show", "--json", *words).json
        assert shown["id"] == id_text(stored)


@pytest.mark.parametrize(
    "words", ['{"$oid":"zz"}', '{"$uuid":5}', '{"$binary":1}', '{"$code":1}', '{"$regex":".*"}', '{"$gt":1}']
)
def test_what_is_no_id_is_not_in_mongodb(typed: Etl, collection: Collection[Document], words: str) -> None:
    """It is never an unforeseen error, and finds no document that it does not name."""
    collection.insert_one(api("p", datetime.now(UTC), _id="d"))
    assert typed("sync").code == 0
    assert typed("trace", NAME, words).out.splitlines()[-1].startswith("not in MongoDB")
    result = typed("dead-letters", "show", words)
    assert (result.code, "is not a dead letter" in result.err) == (1, True)


@pytest.mark.parametrize("words", [("trace", "nowhere", "d"), ("trace", NAME)])
def test_a_wrong_usage_is_refused(typed: Etl, words: tuple[str, ...]) -> None:
    """In one line."""
    result = typed(*words)
    assert (result.code, result.err.count("\n")) == (2, 1)
