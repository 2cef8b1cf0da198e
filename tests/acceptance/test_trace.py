"""`etl trace`."""

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


def test_trace_shows_keys_dead_letter_and_outcome(
    etl: Etl, etl_in_process: Etl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Keys with TTL and differences, and the fields of the dead letter; the last line explains."""
    now = datetime.now(UTC)
    collection.insert_many([api("p", now, _id="d"), api("q", now, _id="e", status=5)])
    assert etl_in_process("sync").code == 0
    redis_client.hset("config:api:p", "more", "1")
    trace = etl("trace", NAME, "d")
    assert (trace.code, trace.err) == (0, "")
    assert "  in MongoDB    yes\n" in trace.out
    assert "  fills         config:api:p: hash, " in trace.out
    assert ' s left; different, field "more" should not exist: "1"\n' in trace.out
    assert "  watermark     has passed it\n" in trace.out
    assert trace.out.splitlines()[-1].startswith(
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


def test_trace_and_dead_letters_find_ids_in_each_notation(
    etl_in_process: Etl, collection: Collection[Document]
) -> None:
    """For each type of number in MongoDB."""
    now = datetime.now(UTC)
    collection.insert_many([api(f"p{n}", now, _id=stored, status=5) for n, stored in enumerate(STORED)])
    assert etl_in_process("sync").code == 0
    for words, stored in zip(TYPED, STORED, strict=True):
        trace = etl_in_process("trace", "--json", NAME, *words).json
        assert (trace["found"], trace["outcome"], trace["dead_letter"]["id"]) == (
            True,
            "invalid",
            id_text(stored),
        )
        shown = etl_in_process("dead-letters", "show", "--json", *words).json
        assert shown["id"] == id_text(stored)


@pytest.mark.parametrize(
    "words", ['{"$oid":"zz"}', '{"$uuid":5}', '{"$binary":1}', '{"$code":1}', '{"$regex":".*"}', '{"$gt":1}']
)
def test_invalid_id_is_not_in_mongodb(
    etl_in_process: Etl, collection: Collection[Document], words: str
) -> None:
    """It is no unexpected error, and matches no other document."""
    collection.insert_one(api("p", datetime.now(UTC), _id="d"))
    assert etl_in_process("sync").code == 0
    assert etl_in_process("trace", NAME, words).out.splitlines()[-1].startswith("not in MongoDB")
    result = etl_in_process("dead-letters", "show", words)
    assert (result.code, "is not a dead letter" in result.err) == (1, True)


@pytest.mark.parametrize("words", [("trace", "nowhere", "d"), ("trace", NAME)])
def test_wrong_usage_of_trace_is_one_line(etl_in_process: Etl, words: tuple[str, ...]) -> None:
    result = etl_in_process(*words)
    assert (result.code, result.err.count("\n")) == (2, 1)
