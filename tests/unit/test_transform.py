"""Raw documents become results, good, bad and broken ones alike."""

import pickle
import tracemalloc
from typing import Any

import bson
import pytest
from bson import Decimal128, Timestamp
from bson.datetime_ms import DatetimeMS

from etl.transform.transform import Transform
from schemas.operations import Enqueue, Evict, Keep, Put, Reject
from tests import factories

TRANSFORM = Transform("promptContent", "generacion", "updated_at", most_bytes=10_000)


def api(document_id: Any, **changes: Any) -> bytes:
    """A document that fills one hash."""
    return bson.encode({"_id": document_id} | factories.api("a", DatetimeMS(5)) | changes)


def campaign(document_id: Any, **changes: Any) -> bytes:
    """A document that fills a list, or asks for messages."""
    return bson.encode({"_id": document_id} | factories.campaign("c", DatetimeMS(5)) | changes)


def test_a_document_becomes_writes_and_requests() -> None:
    """Its name, its date, its keys; what it asks of queues; its lock."""
    [one, other] = TRANSFORM([api(1), campaign(2, estado="pendiente")])
    assert one.document.startswith("promptContent ")
    assert (one.timestamp, one.ms, one.lock, one.reject) == ("5", 5, None, None)
    assert [(type(write), write.key) for write in one.writes] == [(Put, "config:api:a")]
    assert other.lock == "lock:content_generation:c"
    assert (other.writes, [type(push) for push in other.pushes]) == ((), [Enqueue])
    assert {type(keep) for keep in other.keeps} == {Keep}
    assert len(other.keeps) == 2
    assert one.position.ms == 5


def test_a_bad_document_stops_no_neighbour() -> None:
    """Each has its result, in order, and nothing of its content is in the reason."""
    broken = api(3, status="secret").replace(b"secret", b"\xffecret")
    results = TRANSFORM([api(1, status=5), broken, api(2), campaign(4, mensajes=[])])
    assert [one.reject is None for one in results] == [False, False, True, False]
    assert "ecret" not in str(results[1].reject)
    assert [one.ms for one in results] == [5] * 4


def test_a_tombstone_evicts() -> None:
    """Its keys only."""
    [one] = TRANSFORM([api(1, eliminado=True, status=None)])
    assert one.writes == (Evict("config:api", "config:api:a"),)


def test_a_value_that_would_become_too_large_is_rejected() -> None:
    """With its size."""
    [one] = TRANSFORM([api(1, status="x" * 10_001)])
    assert one.reject is not None
    size = 10_001 + len('{"$numberInt": "1"}config:api:a')
    assert (
        one.reject.reason
        == f"it would take {size:,} bytes of Redis, more than transform.document_bytes (10,000)"
    )


@pytest.mark.parametrize(
    ("number", "length"), [(Decimal128("1E+6000"), 6001), (2.2250738585072014e-308, 325)]
)
def test_numbers_are_counted_before_they_are_written(number: Any, length: int) -> None:
    """Some take 300 times their bytes: a document of 16 MB would take 4 GB of memory."""
    transform = Transform("promptContent", "generacion", "updated_at", most_bytes=1_000_000)
    count = 10_000_000 // length
    document = api(1, endpoints=[{"a": number}] * count)
    tracemalloc.start()
    [one] = transform([document])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert one.reject == Reject("its numbers would take more than 1,000,000 bytes of Redis")
    assert peak < 1_000 * count + 1_000_000  # the decoded document, and no text of 10 MB

    [one] = transform([api(1, endpoints=[{"a": number}] * (900_000 // length))])
    assert one.reject is None


@pytest.mark.parametrize(
    ("moment", "first"), [(None, "<"), ("2025-01-15", "<"), (7, "<"), (Timestamp(1, 1), ">")]
)
def test_values_that_are_no_dates_sort_before_or_after_all_dates(moment: Any, first: str) -> None:
    """As the index has it; no two values look alike, and the position can be made of it again."""
    [one, other] = TRANSFORM([api(1, updated_at=moment), api(1, updated_at=Timestamp(9, 9))])
    assert (one.timestamp[0], one.ms) == (first, None)
    assert one.timestamp != other.timestamp
    assert " " not in one.timestamp
    assert one.position.order() < other.position.order()


def test_an_array_is_no_timestamp() -> None:
    """It has no single place in the index."""
    [one] = TRANSFORM([api(1, updated_at=[DatetimeMS(5)])])
    assert one.reject is not None
    assert one.reject.reason == "updated_at is an array"


def test_ids_look_alike_only_where_they_are_the_same() -> None:
    """Of whatever type."""
    ids = [1, 1.5, "1", b"1", {"a": 1}, bson.ObjectId(), bson.Int64(1), True, None]
    assert len({one.document for one in TRANSFORM([api(one) for one in ids])}) == len(ids)


def test_results_and_the_transform_can_be_pickled() -> None:
    """To another process and back."""
    there = pickle.loads(pickle.dumps(TRANSFORM))  # noqa: S301 (made here)
    documents = [api(1), campaign(2), api(3, status=5)]
    assert pickle.loads(pickle.dumps(there(documents))) == TRANSFORM(documents)  # noqa: S301 (made here)
