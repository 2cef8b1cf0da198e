"""Documents under a generation lock."""

import redis

from etl.model.batch import Deferred
from etl.sync.processor import Processor
from tests.support.batches import (
    KEY,
    LOCK,
    OTHER,
    QUEUE,
    Documents,
    generation_request,
    process,
    status,
    status_put,
)
from tests.support.results import result


def test_documents_under_a_lock_are_deferred(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Others on the page are written. After the lock is released the deferred ones are read again and written."""
    client.set(LOCK, "17")
    locked = result(1, status_put("a"), generation_request("item"), lock=LOCK)
    page = documents.put(locked, result(2, status_put("b", OTHER)))
    outcome = process(processor, *page)
    assert outcome.deferred == [Deferred(locked.id, LOCK)]
    assert (outcome.processed, outcome.handled) == (1, [result(2).id])
    assert not client.exists(KEY, QUEUE)
    assert process(processor, *page).deferred == [Deferred(locked.id, LOCK)], "it is not done"

    client.delete(LOCK)
    read_at, results = processor.read([locked.id])
    outcome = process(processor, *results, read_at=read_at, skip_done=False)
    assert (outcome.deferred, outcome.handled) == ([], [locked.id])
    assert (status(client), client.lrange(QUEUE, 0, -1)) == ("a", ["item"])


def test_locked_document_does_not_leave_its_key(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    process(processor, *documents.put(result(1, status_put("a"), lock=LOCK)))
    client.set(LOCK, "17")
    moved = documents.put(result(1, status_put("a", OTHER), lock=LOCK, ms=2_000))
    process(processor, *moved)
    assert status(client) == "a"
    client.delete(LOCK)
    process(processor, *moved)
    assert status(client, OTHER) == "a"
    assert not client.exists(KEY)


def test_locked_holder_keeps_its_key(processor: Processor, documents: Documents, client: redis.Redis) -> None:
    """An older claim on the same page is recorded, and written when the holder leaves."""
    process(processor, *documents.put(result(2, status_put("2"), ms=2_000, lock=LOCK)))
    client.set(LOCK, "17")
    page = documents.put(
        result(1, status_put("1"), ms=1_000), result(2, status_put("2 new"), ms=3_000, lock=LOCK)
    )
    outcome = process(processor, *page)
    assert status(client) == "2"
    assert outcome.deferred == [Deferred(result(2).id, LOCK)]
    client.delete(LOCK)
    process(processor, *documents.put(result(2, ms=4_000, lock=LOCK)))
    assert status(client) == "1"


def test_key_does_not_disappear_if_the_next_document_is_locked(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    process(
        processor, *documents.put(result(1, status_put("1"), lock=LOCK), result(2, status_put("2"), ms=2_000))
    )
    client.set(LOCK, "17")
    page = documents.put(result(2, ms=3_000), result(1, status_put("1 new"), ms=4_000, lock=LOCK))
    process(processor, *page)
    assert status(client) in {"1", "1 new", "2"}
    client.delete(LOCK)
    process(processor, *page)
    assert status(client) == "1 new"


def test_locked_next_document_of_another_page_gets_that_key_only(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Its other keys and its request wait for the lock."""
    process(
        processor, *documents.put(result(1, status_put("1"), lock=LOCK), result(2, status_put("2"), ms=2_000))
    )
    client.set(LOCK, "17")
    successor = result(
        1, status_put("1 new"), status_put("other", OTHER), generation_request("item"), ms=1_500, lock=LOCK
    )
    documents.put(successor)
    process(processor, *documents.put(result(2, ms=3_000)))
    assert (status(client), client.exists(OTHER), client.llen(QUEUE)) == ("1 new", 0, 0)
    client.delete(LOCK)
    process(processor, successor)
    assert (status(client, OTHER), client.llen(QUEUE)) == ("other", 1)
