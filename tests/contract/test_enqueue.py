"""Requests in queues: each version of a document is queued once."""

from collections.abc import Sequence
from typing import Any

import pytest
import redis
from bson import ObjectId

from etl.cache.keys import requests_key
from etl.cache.writer import DEADLINE_SECONDS, Applied, CacheWriter, KeyWrite, QueuePush
from schemas.families import CONFIG_API
from schemas.operations import Put
from tests.support.results import result

QUEUE = "queue:ai_generation:alta"
OTHER = "queue:ai_generation:baja"
LATE = int(DEADLINE_SECONDS * 1_000_000)
ABOUT = 2_000_000  # microseconds that a slow machine may lose
NOTHING = Applied([], [], 0, [], [])


def request(document_id: Any, ms: int = 1_000, queue: str = QUEUE) -> QueuePush:
    """A request of a version of a document."""
    return QueuePush(queue, result(document_id).document, str(ms), f"item {document_id} {ms}")


def no_request(document_id: Any, ms: int = 1_000, queue: str = QUEUE) -> QueuePush:
    """A version without a request, of a document that had one before."""
    return request(document_id, ms, queue)._replace(item="")


def enqueue(writer: CacheWriter, *requests: QueuePush, read_at: int | None = None) -> Applied:
    """Enqueue requests, by default of documents that are read now."""
    return writer.apply({}, requests, read_at or writer.now(), 100)


def pushed(number: int) -> Applied:
    """The reply after `number` pushes."""
    return NOTHING._replace(pushed=number)


def stale(*document_ids: Any) -> Applied:
    """The reply if these documents must be read again."""
    return NOTHING._replace(stale=[result(one).document for one in document_ids])


def queued(client: redis.Redis, queue: str = QUEUE) -> Sequence[str]:
    """The items of a queue."""
    items: Any = client.lrange(queue, 0, -1)
    return [*items]


def test_version_is_queued_once(writer: CacheWriter, client: redis.Redis) -> None:
    """Also after the queue was popped, and by an older read."""
    early = writer.now()
    assert enqueue(writer, request(1), request(2)) == pushed(2)
    assert enqueue(writer, request(1), request(3)) == pushed(1)
    assert enqueue(writer, request(1), read_at=early) == NOTHING
    assert queued(client) == ["item 1 1000", "item 2 1000", "item 3 1000"]
    client.delete(QUEUE)
    assert enqueue(writer, request(1)) == NOTHING
    assert not client.exists(QUEUE)


def test_new_version_is_queued_again(writer: CacheWriter, client: redis.Redis) -> None:
    """In any queue, and also with an earlier date."""
    assert enqueue(writer, request(1)) == pushed(1)
    assert enqueue(writer, request(1, 2_000)) == pushed(1)
    assert enqueue(writer, request(1, 3_000, OTHER)) == pushed(1)
    assert enqueue(writer, request(1, 500)) == pushed(1)
    assert queued(client) == ["item 1 1000", "item 1 2000", "item 1 500"]
    assert queued(client, OTHER) == ["item 1 3000"]


def test_older_read_pushes_nothing(writer: CacheWriter, client: redis.Redis) -> None:
    """The document of the late writer must be read again, whatever its date."""
    early = writer.now()
    enqueue(writer, request(1, 2_000))
    assert enqueue(writer, request(1, 1_000), request(1, 3_000), request(4), read_at=early) == (
        stale(1, 1)._replace(pushed=1)
    )
    assert queued(client) == ["item 1 2000", "item 4 1000"]


def test_older_read_of_a_withdrawn_request_pushes_nothing(writer: CacheWriter, client: redis.Redis) -> None:
    """Also if the request was never pushed, because its writer is late."""
    early = writer.now()
    assert enqueue(writer, no_request(1, 2_000)) == NOTHING
    assert enqueue(writer, request(1, 1_000), read_at=early) == stale(1)
    assert enqueue(writer, request(1, 3_000)) == pushed(1)
    assert queued(client) == ["item 1 3000"]


def test_last_pushed_version_is_remembered_after_a_withdrawal(
    writer: CacheWriter, client: redis.Redis
) -> None:
    """The same version again, as after a crash, is no new request."""
    enqueue(writer, request(1))
    assert enqueue(writer, no_request(1, 2_000)) == NOTHING
    assert enqueue(writer, request(1)) == NOTHING
    assert enqueue(writer, request(1, 3_000)) == pushed(1)
    assert queued(client) == ["item 1 1000", "item 1 3000"]


def test_older_read_without_request_is_read_again(writer: CacheWriter) -> None:
    """Another writer has read the document later, and pushed its request."""
    early = writer.now()
    enqueue(writer, request(1, 2_000))
    assert enqueue(writer, no_request(1, 1_000), read_at=early) == stale(1)


def test_read_in_the_microsecond_of_a_push_is_read_again(writer: CacheWriter, client: redis.Redis) -> None:
    """It may have happened before the push."""
    enqueue(writer, request(1))
    recorded: Any = client.hget(requests_key(QUEUE), result(1).document)
    moment = int(recorded.partition(" ")[0])
    assert enqueue(writer, request(1, 2_000), read_at=moment) == stale(1)
    assert enqueue(writer, request(1, 2_000), read_at=moment + 1) == pushed(1)


@pytest.mark.parametrize("moment", [-LATE - 1, ABOUT])
def test_read_that_is_too_old_or_in_the_future_pushes_nothing(
    writer: CacheWriter, client: redis.Redis, moment: int
) -> None:
    """All documents of the call must be read again."""
    requests = [request(number) for number in range(150)]
    assert enqueue(writer, *requests, read_at=writer.now() + moment) == stale(*range(150))
    assert client.dbsize() == 0


def test_thousands_of_requests_keep_their_order(writer: CacheWriter, client: redis.Redis) -> None:
    assert enqueue(writer, *(request(number) for number in range(2_500))) == pushed(2_500)
    assert queued(client) == [f"item {number} 1000" for number in range(2_500)]


def test_queues_have_no_ttl(writer: CacheWriter, client: redis.Redis) -> None:
    """Nor have the records of requests."""
    enqueue(writer, request(1))
    assert (client.ttl(QUEUE), client.ttl(requests_key(QUEUE))) == (-1, -1)


def test_queue_of_the_wrong_type_refuses_only_its_requests(writer: CacheWriter, client: redis.Redis) -> None:
    """The rest of the batch is written. Once the queue is repaired the request is pushed."""
    client.set(QUEUE, "a string")
    version = result(3)
    change = KeyWrite(
        version.document, f"1000 {version.document}", Put(CONFIG_API.name, "config:api:a", {"a": "b"})
    )
    reply = writer.apply({"config:api:a": [change]}, [request(1), request(2, queue=OTHER)], writer.now(), 100)
    assert reply == NOTHING._replace(pushed=1, refused=[result(1).document])
    assert client.hgetall("config:api:a") == {"a": "b"}
    assert client.get(QUEUE) == "a string"
    client.delete(QUEUE)
    assert enqueue(writer, request(1)) == pushed(1)


def test_requests_are_distinguished_by_id_type_and_collection(
    writer: CacheWriter, client: redis.Redis
) -> None:
    """Two collections may feed one queue; an ObjectId and its hex are different documents."""
    name = "5f5f5f5f5f5f5f5f5f5f5f5f"
    other = request(name)._replace(document=result(name, source="other").document)
    assert enqueue(writer, request(ObjectId(name)), request(name), other) == pushed(3)
    assert len(queued(client)) == 3


def test_record_of_a_request_in_the_future_refuses_nothing(writer: CacheWriter, client: redis.Redis) -> None:
    """The clock of Redis has been set back since it was written."""
    ahead = writer.now() + 3_600_000_000
    client.hset(requests_key(QUEUE), result(1).document, f"{ahead} 1000")
    assert enqueue(writer, request(1, 1_000)) == NOTHING
    assert enqueue(writer, request(1, 2_000)) == pushed(1)
