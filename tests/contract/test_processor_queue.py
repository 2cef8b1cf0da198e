"""Generation requests and the sweep of their records."""

from typing import Any

import redis

from etl.cache.client import Wire
from etl.cache.keys import requests_key
from etl.cache.writer import CacheWriter
from etl.sync.processor import Processor
from tests.support.assembly import NAME, ImmediateRetry
from tests.support.batches import LATE, QUEUE, Documents, generation_request, process, status_put
from tests.support.results import rejected, result


def test_request_that_moves_to_another_queue_is_pushed_there_only(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Also if a late worker sends the older version."""
    early = processor.now()
    older = result(1, generation_request("alta"), ms=1_000)
    process(
        processor, *documents.put(result(1, generation_request("baja", "queue:ai_generation:baja"), ms=2_000))
    )
    process(processor, older, read_at=early)
    assert not client.exists(QUEUE)
    assert client.lrange("queue:ai_generation:baja", 0, -1) == ["baja"]


def test_request_older_than_the_last_pushed_one_is_read_again(
    processor: Processor, documents: Documents, client: redis.Redis, wire: Wire
) -> None:
    """The current version is queued."""
    versions = [result(1, generation_request(f"item {ms}"), ms=ms) for ms in (1_000, 2_000, 3_000)]

    class OvertakenWriter(CacheWriter):
        def apply(self, *arguments: Any) -> Any:
            if not client.exists(QUEUE):
                process(processor, *documents.put(versions[1]))
                documents.put(versions[2])
            return super().apply(*arguments)

    slow = OvertakenWriter(wire, {"config:api": 60, "queue:ai_generation": None}, 60)
    outcome = process(Processor(slow, NAME, documents.reread, lambda _: True, ImmediateRetry()), versions[0])
    assert client.lrange(QUEUE, 0, -1) == ["item 2000", "item 3000"]
    assert (outcome.enqueued, outcome.processed) == (1, 1)


def test_queue_of_the_wrong_type_gives_a_dead_letter(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """After the key is deleted the document is queued."""
    client.set(QUEUE, "a string")
    page = documents.put(result(1, generation_request("item")), result(2, status_put("b")))
    outcome = process(processor, *page)
    [refused] = outcome.rejected
    assert (refused.id, refused.reject.reason) == (
        result(1).id,
        "its queue holds something that is not a list: move it away",
    )
    assert (outcome.processed, outcome.handled) == (1, [result(2).id])
    client.delete(QUEUE)
    assert process(processor, *page).enqueued == 1


def sweep(processor: Processor) -> None:
    """Sweep all records of the queue."""
    cursor = processor.sweep(QUEUE, "0")
    while cursor != "0":
        cursor = processor.sweep(QUEUE, cursor)


def test_sweep_keeps_the_records_of_pending_requests(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Without its record a request would be pushed a second time."""
    pending = [result(number, generation_request(f"{number}")) for number in range(6)]
    process(processor, *documents.put(*pending))
    other = result(9, generation_request("9"), source="unknown")
    process(processor, *documents.put(other))
    documents.put(result(1, ms=2_000), result(2, generation_request("2"), ms=2_000), rejected(3, ms=2_000))
    del documents.held[pending[4].document]
    documents.put(result(5, generation_request("5", "queue:ai_generation:baja"), ms=1_000))
    register = requests_key(QUEUE)
    recorded: Any = client.hgetall(register)
    assert len(recorded) == 7

    sweep(processor)
    assert client.hgetall(register) == recorded, "an older read may still arrive"

    old = processor.now() - LATE - 1
    client.hset(register, mapping={name: f"{old} {text.split()[1]}" for name, text in recorded.items()})
    client.hset(register, "second 7", f"{old} -")
    sweep(processor)
    assert {*client.hgetall(register)} == {pending[0].document, other.document}
    assert process(processor, pending[0], skip_done=False).enqueued == 0


def test_sweep_keeps_a_request_that_is_pushed_during_it(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    process(processor, *documents.put(result(1, generation_request("1"))))
    documents.put(result(1, ms=2_000))
    register = requests_key(QUEUE)
    client.hset(register, result(1).document, f"{processor.now() - LATE - 1} 1000")
    again = result(1, generation_request("again"), ms=3_000)

    def other_writer() -> None:
        process(processor, again)

    documents.after_read = other_writer
    sweep(processor)
    assert process(processor, again, skip_done=False).enqueued == 0
    assert client.lrange(QUEUE, 0, -1) == ["1", "again"]
