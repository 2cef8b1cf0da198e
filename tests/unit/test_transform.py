"""Valid, invalid and broken documents become results."""

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
    """A document that claims one hash."""
    return bson.encode({"_id": document_id} | factories.api("a", DatetimeMS(5)) | changes)


def campaign(document_id: Any, **changes: Any) -> bytes:
    """A document that claims a list, or requests messages."""
    return bson.encode({"_id": document_id} | factories.campaign("c", DatetimeMS(5)) | changes)


def test_result_has_writes_pushes_keeps_and_lock() -> None:
    """And the name and date of the document."""
    [one, other] = TRANSFORM([api(1), campaign(2, estado="pendiente")])
    assert one.document.startswith("promptContent ")
    assert (one.timestamp, one.ms, one.lock, one.reject) == ("5", 5, None, None)
    assert [(type(write), write.key) for write in one.writes] == [(Put, "config:api:a")]
    assert other.lock == "lock:content_generation:c"
    assert (other.writes, [type(push) for push in other.pushes]) == ((), [Enqueue])
    assert {type(keep) for keep in other.keeps} == {Keep}
    assert len(other.keeps) == 2
    assert one.position.ms == 5


def test_invalid_document_does_not_affect_others() -> None:
    """Each has a result, in order. The reason quotes nothing of the document."""
    broken = api(3, status="secret").replace(b"secret", b"\xffecret")
    results = TRANSFORM([api(1, status=5), broken, api(2), campaign(4, mensajes=[])])
    assert [one.reject is None for one in results] == [False, False, True, False]
    assert "ecret" not in str(results[1].reject)
    assert [one.ms for one in results] == [5] * 4


def test_tombstone_evicts_its_key() -> None:
    [one] = TRANSFORM([api(1, eliminado=True, status=None)])
    assert one.writes == (Evict("config:api", "config:api:a"),)


def test_too_large_document_is_rejected() -> None:
    """The reason has its size."""
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
def test_size_of_numbers_is_checked_before_they_are_written(number: Any, length: int) -> None:
    """Some take 300 times their size in BSON: a document of 16 MB would take 4 GB of memory."""
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
def test_other_timestamps_sort_before_or_after_all_dates(moment: Any, first: str) -> None:
    """As in the index; different values have different texts."""
    [one, other] = TRANSFORM([api(1, updated_at=moment), api(1, updated_at=Timestamp(9, 9))])
    assert (one.timestamp[0], one.ms) == (first, None)
    assert one.timestamp != other.timestamp
    assert " " not in one.timestamp
    assert one.position.order() < other.position.order()


def test_array_timestamp_is_rejected() -> None:
    """It has several entries in the index."""
    [one] = TRANSFORM([api(1, updated_at=[DatetimeMS(5)])])
    assert one.reject is not None
    assert one.reject.reason == "updated_at is an array"


def test_different_ids_have_different_names() -> None:
    ids = [1, 1.5, "1", b"1", {"a": 1}, bson.ObjectId(), bson.Int64(1), True, None]
    assert len({one.document for one in TRANSFORM([api(one) for one in ids])}) == len(ids)


def test_transform_and_results_survive_pickling() -> None:
    unpickled = pickle.loads(pickle.dumps(TRANSFORM))  # noqa: S301 (made here)
    documents = [api(1), campaign(2), api(3, status=5)]
    assert pickle.loads(pickle.dumps(unpickled(documents))) == TRANSFORM(documents)  # noqa: S301 (made here)
