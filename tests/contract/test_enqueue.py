"""Requests in queues, over a fake Redis, a real one and a cluster: each version of a document once."""

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


def asks(document_id: Any, ms: int = 1_000, queue: str = QUEUE) -> QueuePush:
    """A version of a document asks for messages."""
    return QueuePush(queue, result(document_id).document, str(ms), f"item {document_id} {ms}")


def asks_nothing(document_id: Any, ms: int = 1_000, queue: str = QUEUE) -> QueuePush:
    """A version of a document that has asked before asks for nothing any more."""
    return asks(document_id, ms, queue)._replace(item="")


def enqueue(writer: CacheWriter, *requests: QueuePush, read_at: int | None = None) -> Applied:
    """Queue what documents ask for, by default ones that are read now."""
    return writer.apply({}, requests, read_at or writer.now(), 100)


def pushed(number: int) -> Applied:
    """These were pushed, and nothing else happened."""
    return NOTHING._replace(pushed=number)


def stale(*document_ids: Any) -> Applied:
    """These are to be read again."""
    return NOTHING._replace(stale=[result(one).document for one in document_ids])


def queued(client: redis.Redis, queue: str = QUEUE) -> Sequence[str]:
    """The items of a queue."""
    items: Any = client.lrange(queue, 0, -1)
    return [*items]


def test_a_version_is_queued_once(writer: CacheWriter, client: redis.Redis) -> None:
    """Repeated, it is not pushed again; neither after the queue was popped, nor by an older read of it."""
    early = writer.now()
    assert enqueue(writer, asks(1), asks(2)) == pushed(2)
    assert enqueue(writer, asks(1), asks(3)) == pushed(1)
    assert enqueue(writer, asks(1), read_at=early) == NOTHING
    assert queued(client) == ["item 1 1000", "item 2 1000", "item 3 1000"]
    client.delete(QUEUE)
    assert enqueue(writer, asks(1)) == NOTHING
    assert not client.exists(QUEUE)


def test_a_new_version_is_queued_again(writer: CacheWriter, client: redis.Redis) -> None:
    """A request made anew is a new request, in whatever queue, and with whatever date."""
    assert enqueue(writer, asks(1)) == pushed(1)
    assert enqueue(writer, asks(1, 2_000)) == pushed(1)
    assert enqueue(writer, asks(1, 3_000, OTHER)) == pushed(1)
    assert enqueue(writer, asks(1, 500)) == pushed(1)
    assert queued(client) == ["item 1 1000", "item 1 2000", "item 1 500"]
    assert queued(client, OTHER) == ["item 1 3000"]


def test_an_older_read_pushes_nothing(writer: CacheWriter, client: redis.Redis) -> None:
    """A slow writer that comes late: its document is to be read again, whatever its date."""
    early = writer.now()
    enqueue(writer, asks(1, 2_000))
    assert enqueue(writer, asks(1, 1_000), asks(1, 3_000), asks(4), read_at=early) == (
        stale(1, 1)._replace(pushed=1)
    )
    assert queued(client) == ["item 1 2000", "item 4 1000"]


def test_an_older_read_of_one_that_asks_for_nothing_any_more_pushes_nothing(
    writer: CacheWriter, client: redis.Redis
) -> None:
    """Also where the request was never pushed: the writer that was to do so is late."""
    early = writer.now()
    assert enqueue(writer, asks_nothing(1, 2_000)) == NOTHING
    assert enqueue(writer, asks(1, 1_000), read_at=early) == stale(1)
    assert enqueue(writer, asks(1, 3_000)) == pushed(1)
    assert queued(client) == ["item 1 3000"]


def test_what_was_pushed_is_known_after_it_asked_for_nothing(
    writer: CacheWriter, client: redis.Redis
) -> None:
    """The same version once more, as after a crash in between, is no new request."""
    enqueue(writer, asks(1))
    assert enqueue(writer, asks_nothing(1, 2_000)) == NOTHING
    assert enqueue(writer, asks(1)) == NOTHING
    assert enqueue(writer, asks(1, 3_000)) == pushed(1)
    assert queued(client) == ["item 1 1000", "item 1 3000"]


def test_an_older_read_that_asks_for_nothing_is_read_again(writer: CacheWriter) -> None:
    """Another writer has read the document later, and pushed."""
    early = writer.now()
    enqueue(writer, asks(1, 2_000))
    assert enqueue(writer, asks_nothing(1, 1_000), read_at=early) == stale(1)


def test_a_read_at_the_moment_of_a_push_is_read_again(writer: CacheWriter, client: redis.Redis) -> None:
    """It may have been before it: a microsecond is long."""
    enqueue(writer, asks(1))
    noted: Any = client.hget(requests_key(QUEUE), result(1).document)
    moment = int(noted.partition(" ")[0])
    assert enqueue(writer, asks(1, 2_000), read_at=moment) == stale(1)
    assert enqueue(writer, asks(1, 2_000), read_at=moment + 1) == pushed(1)


@pytest.mark.parametrize("moment", [-LATE - 1, ABOUT])
def test_a_read_that_is_too_old_or_of_the_future_pushes_nothing(
    writer: CacheWriter, client: redis.Redis, moment: int
) -> None:
    """All documents of the call are to be read again."""
    requests = [asks(number) for number in range(150)]
    assert enqueue(writer, *requests, read_at=writer.now() + moment) == stale(*range(150))
    assert client.dbsize() == 0


def test_thousands_of_requests_in_one_batch(writer: CacheWriter, client: redis.Redis) -> None:
    """However many there are, all are queued in their order."""
    assert enqueue(writer, *(asks(number) for number in range(2_500))) == pushed(2_500)
    assert queued(client) == [f"item {number} 1000" for number in range(2_500)]


def test_queues_have_no_ttl(writer: CacheWriter, client: redis.Redis) -> None:
    """A request waits as long as it takes, and is known as long."""
    enqueue(writer, asks(1))
    assert (client.ttl(QUEUE), client.ttl(requests_key(QUEUE))) == (-1, -1)


def test_a_queue_of_the_wrong_type_refuses_its_requests_only(
    writer: CacheWriter, client: redis.Redis
) -> None:
    """The rest of the batch is written; once the queue is mended the request is pushed."""
    client.set(QUEUE, "a string")
    version = result(3)
    change = KeyWrite(
        version.document, f"1000 {version.document}", Put(CONFIG_API.name, "config:api:a", {"a": "b"})
    )
    reply = writer.apply({"config:api:a": [change]}, [asks(1), asks(2, queue=OTHER)], writer.now(), 100)
    assert reply == NOTHING._replace(pushed=1, refused=[result(1).document])
    assert client.hgetall("config:api:a") == {"a": "b"}
    assert client.get(QUEUE) == "a string"
    client.delete(QUEUE)
    assert enqueue(writer, asks(1)) == pushed(1)


def test_documents_are_told_apart_by_type_and_collection(writer: CacheWriter, client: redis.Redis) -> None:
    """Two collections may feed one queue; an ObjectId and its hex are two documents."""
    name = "5f5f5f5f5f5f5f5f5f5f5f5f"
    other = asks(name)._replace(document=result(name, source="other").document)
    assert enqueue(writer, asks(ObjectId(name)), asks(name), other) == pushed(3)
    assert len(queued(client)) == 3


def test_a_request_of_the_future_refuses_nothing(writer: CacheWriter, client: redis.Redis) -> None:
    """The clock of Redis was set back since it was noted."""
    ahead = writer.now() + 3_600_000_000
    client.hset(requests_key(QUEUE), result(1).document, f"{ahead} 1000")
    assert enqueue(writer, asks(1, 1_000)) == NOTHING
    assert enqueue(writer, asks(1, 2_000)) == pushed(1)
