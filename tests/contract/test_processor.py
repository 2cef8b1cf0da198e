"""Writing one batch of documents, beside other writers."""

from itertools import count
from typing import Any

import pytest
import redis

from etl.cache.client import Wire
from etl.cache.keys import record_key
from etl.errors import TransientError
from etl.model.batch import BatchOutcome, Rejected
from etl.sync.processor import Processor
from schemas.operations import Evict, Put, Reject
from tests.support.batches import (
    KEY,
    LATE,
    OTHER,
    QUEUE,
    Documents,
    generation_request,
    process,
    status,
    status_put,
)
from tests.support.results import rejected, result


def test_outcome_counts_every_document_of_a_page(processor: Processor, client: redis.Redis) -> None:
    messages = Put("ai:campaign_messages", "ai:campaign_messages:c:s", ["1", "2"])
    meta = Evict("ai:generation:meta", "ai:generation:meta:c:s")
    bad = rejected(4)
    outcome = process(
        processor,
        result(1, status_put("a")),
        result(2, messages, meta),
        result(3, Evict("config:api", OTHER)),
        bad,
        result(5, generation_request("item")),
        result(6),
    )
    assert outcome == BatchOutcome(
        processed=5,
        written=2,
        evicted=1,
        enqueued=1,
        entries={"config:api": 1, "ai:campaign_messages": 1},  # type: ignore[arg-type]
        rejected=[Rejected(bad.id, Reject("invalid fields"), bad.timestamp)],
        handled=[result(n).id for n in (1, 2, 3, 5, 6)],
        queues={QUEUE},
    )
    assert status(client) == "a"
    assert client.lrange("ai:campaign_messages:c:s", 0, -1) == ["1", "2"]
    assert client.lrange(QUEUE, 0, -1) == ["item"]
    assert not client.exists("ai:generation:meta:c:s", OTHER, record_key(bad.document))


def test_done_version_is_not_written_again(processor: Processor, client: redis.Redis) -> None:
    """It counts as handled, although its key and its request are gone."""
    version = result(1, status_put("a"), generation_request("item"))
    process(processor, version)
    client.delete(KEY, QUEUE)
    outcome = process(processor, version)
    assert outcome == BatchOutcome(handled=[version.id])
    assert not client.exists(KEY, QUEUE)


def test_done_version_is_written_again_without_trust(processor: Processor, client: redis.Redis) -> None:
    """As in a refresh and a backfill. Its request is not pushed again."""
    version = result(1, status_put("a"), generation_request("item"))
    process(processor, version)
    client.delete(KEY, QUEUE)
    outcome = process(processor, version, skip_done=False)
    assert (outcome.processed, outcome.written, outcome.enqueued) == (1, 1, 0)
    assert status(client) == "a"
    assert not client.exists(QUEUE)


@pytest.mark.parametrize(("remember_from", "again"), [(None, 3), (1_001, 2), (0, 1)])
def test_versions_within_the_lookback_are_marked_as_done(
    processor: Processor, remember_from: int | None, again: int
) -> None:
    """A delta does not read undated documents again."""
    page = [
        result(1, status_put("a"), ms=1_000),
        result(2, status_put("b", OTHER), ms=1_001),
        result(3)._replace(ms=None, timestamp="<null"),
    ]
    process(processor, *page, remember_from=remember_from)
    assert process(processor, *page).processed == again


def test_newer_version_removes_keys_it_does_not_claim(processor: Processor, client: redis.Redis) -> None:
    process(processor, result(1, status_put("a"), status_put("b", OTHER)))
    outcome = process(processor, result(1, status_put("c"), ms=2_000))
    assert status(client) == "c"
    assert not client.exists(OTHER)
    assert (outcome.processed, outcome.entries) == (1, {"config:api": 1})


def test_document_that_is_twice_on_a_page_is_read_again(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """It was changed while the page was read. It counts once, and its current version is written."""
    first, second = result(1, status_put("first"), ms=1_000), result(1, status_put("second"), ms=2_000)
    documents.put(result(1, status_put("third"), ms=3_000))
    outcome = process(processor, first, result(2, status_put("b", OTHER)), second)
    assert (status(client), status(client, OTHER)) == ("third", "b")
    assert (outcome.processed, sorted(outcome.handled)) == (2, sorted([first.id, result(2).id]))
    documents.held.clear()
    outcome = process(processor, first, second)
    assert (outcome.processed, outcome.handled) == (0, [first.id])
    assert not client.exists(KEY)


def test_late_worker_does_not_overwrite_newer_versions(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    early = processor.now()
    slept = [
        result(n, status_put("old", f"config:api:{n}"), generation_request(f"old {n}"), ms=n)
        for n in (1, 2, 3)
    ]
    process(processor, *documents.put(result(1, status_put("new", "config:api:1"), ms=10)))
    process(processor, *documents.put(result(2, status_put("new", "config:api:9"), ms=11)))
    outcome = process(processor, *slept, read_at=early)
    assert status(client, "config:api:1") == "new"
    assert not client.exists("config:api:2")
    assert status(client, "config:api:9") == "new"
    assert status(client, "config:api:3") == "old", "no other worker has written it, so it may be current"
    assert client.lrange(QUEUE, 0, -1) == ["old 3"]
    assert len(outcome.handled) == 3


def test_page_written_after_the_deadline_is_read_again(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """The whole page, because the records of its documents may have expired."""
    page = [result(n, status_put("old", f"config:api:{n}"), ms=n) for n in (1, 2)]
    documents.put(result(1, status_put("new", "config:api:1"), ms=10))
    outcome = process(processor, *page, read_at=processor.now() - LATE - 1)
    assert status(client, "config:api:1") == "new"
    assert not client.exists("config:api:2")
    assert documents.reads == [{one.document for one in page}]
    assert (outcome.processed, outcome.written) == (1, 1)


def test_earlier_date_is_applied_after_a_read_by_id(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """The page may come from a deposed primary."""
    process(processor, *documents.put(result(1, status_put("ahead"), ms=9_000)))
    stale = result(1, status_put("stale"), ms=1_000)
    process(processor, stale)
    assert status(client) == "ahead"
    process(processor, *documents.put(stale))
    assert status(client) == "stale"


def test_document_that_changes_faster_than_it_is_written_ends_the_batch(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    version = result(1, status_put("a"))
    early, turns = processor.now(), count(2_000)

    def other_writer() -> None:
        process_other = result(1, status_put("b"), ms=next(turns))
        processor.writer.record([process_other], processor.now(), confirmed=True)

    documents.put(version)
    other_writer()
    documents.after_read = other_writer
    with pytest.raises(TransientError, match="change faster"):
        process(processor, version, read_at=early)
    assert not client.exists(KEY)


def test_page_sent_twice_has_the_effect_of_one(
    processor: Processor,
    documents: Documents,
    client: redis.Redis,
    wire: Wire,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exchange = wire.exchange

    def twice(commands: Any) -> Any:
        exchange(commands)
        return exchange(commands)

    process(
        processor,
        *documents.put(result(1, status_put("successor")), result(2, status_put("holder"), ms=2_000)),
    )
    monkeypatch.setattr(wire, "exchange", twice)
    page = documents.put(
        result(2, status_put("c", OTHER), generation_request("item"), ms=3_000),
        result(3, generation_request("other")),
    )
    outcome = process(processor, *page)
    assert (status(client), status(client, OTHER)) == ("successor", "c")
    assert client.lrange(QUEUE, 0, -1) == ["item", "other"]
    assert len(outcome.handled) == 2
    monkeypatch.undo()
    assert process(processor, *page).processed == 0


def test_read_returns_deleted_documents_too(processor: Processor, documents: Documents) -> None:
    """The clock is read before the documents."""
    early = processor.now()
    present = documents.put(result(1, status_put("a")))
    read_at, found = processor.read([result(2).id, result(1).id])
    assert early <= read_at <= processor.now()
    assert {(one.id, one.timestamp) for one in found} == {(result(2).id, "gone"), (present[0].id, "1000")}


def test_pass_over_marks_as_done_without_writing(processor: Processor, client: redis.Redis) -> None:
    version, bad = result(1, status_put("a"), generation_request("item")), rejected(2)
    processor.pass_over([version, bad], processor.now())
    assert not client.exists(KEY, QUEUE)
    assert process(processor, version).processed == 0
    assert process(processor, result(1, status_put("b"), ms=2_000)).processed == 1
    assert status(client) == "b"


def test_repair_ignores_the_registers(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Documents that do not claim the key leave it."""
    process(processor, *documents.put(result(1, status_put("1")), result(2, status_put("2"), ms=2_000)))
    client.hset(KEY, "status", "damaged")
    processor.repair({KEY: [result(1).document, result(2).document]})
    assert status(client) == "2"

    client.delete(*[record_key(result(n).document) for n in (1, 2)])
    documents.held.clear()
    processor.repair({KEY: [result(1).document, result(2).document]})
    assert not client.exists(KEY)
