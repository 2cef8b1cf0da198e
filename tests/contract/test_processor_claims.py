"""Which of several documents decides the content of a key."""

from itertools import count
from typing import Any

import pytest
import redis
from bson import ObjectId

from etl.cache.keys import owner_key, record_key
from etl.model.result import TransformResult
from etl.sync.processor import Processor
from schemas.operations import Keep
from tests.support.batches import (
    KEY,
    OTHER,
    QUEUE,
    Documents,
    generation_request,
    process,
    status,
    status_put,
)
from tests.support.results import rejected, result

IDS = [ObjectId(f"{number:024x}") for number in range(20)]


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_newest_document_is_written_in_any_order_of_pages(
    processor: Processor, documents: Documents, client: redis.Redis, order: tuple[int, int]
) -> None:
    """The page of the older document reads the newer one again."""
    documents.put(*(result(n, status_put(f"{n}"), ms=1_000 + n) for n in (1, 2)))
    for number in order:
        process(processor, documents.held[result(number).document])
    assert status(client) == "2"
    assert documents.reads == ([] if order == (1, 2) else [{result(1).document, result(2).document}])


def test_last_document_of_a_page_is_written(processor: Processor, client: redis.Redis) -> None:
    """Pages are in the order of MongoDB, also for `_id`s of several types."""
    ids: list[Any] = [7, "x", {"a": 1}, ObjectId("f" * 24)]
    process(processor, *(result(one, status_put(repr(one))) for one in ids))
    assert status(client) == repr(ids[-1])


def test_ids_of_several_types_are_ordered_as_in_mongodb(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    ids: list[Any] = [7, "x", {"a": 1}, ObjectId("f" * 24)]
    page = documents.put(*(result(one, status_put(repr(one))) for one in ids))
    for one in (2, 0, 3, 1):
        process(processor, page[one])
    assert status(client) == repr(ids[-1])


def test_next_newest_document_gets_a_key_that_its_holder_leaves(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """It is read again for this key only, and its request is not pushed again."""
    successor = result(
        1, status_put("successor"), status_put("more", OTHER), generation_request("item"), ms=1_000
    )
    process(processor, *documents.put(successor, result(2, status_put("holder"), ms=2_000)))
    client.delete(OTHER, QUEUE)
    moved = documents.put(result(2, status_put("moved", "config:api:c"), ms=3_000))
    outcome = process(processor, *moved)
    assert (status(client), status(client, "config:api:c")) == ("successor", "moved")
    assert not client.exists(OTHER, QUEUE), "they were written before"
    assert (outcome.processed, outcome.enqueued, outcome.handled) == (1, 0, [moved[0].id])


def test_next_document_is_applied_in_its_current_version(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """No cycle has read the new version yet: it is recorded and applied completely."""
    process(
        processor,
        *documents.put(
            result(1, status_put("successor"), status_put("b", OTHER)), result(2, status_put("x"), ms=2_000)
        ),
    )
    documents.put(result(1, status_put("successor now"), generation_request("item"), ms=4_000))
    outcome = process(processor, *documents.put(result(2, ms=3_000)))
    assert status(client) == "successor now"
    assert not client.exists(OTHER)
    assert client.lrange(QUEUE, 0, -1) == ["item"]
    assert outcome.handled == [result(2).id]
    assert process(processor, documents.held[result(1).document]).processed == 0, "it is done"


def test_next_document_that_has_moved_is_skipped(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    page = documents.put(*(result(n, status_put(f"{n}"), ms=n) for n in (1, 2, 3)))
    process(processor, *page)
    documents.put(result(2, status_put("2", OTHER), ms=5))
    process(processor, *documents.put(result(3, ms=4)))
    assert (status(client), status(client, OTHER)) == ("1", "2")


def test_key_is_removed_if_all_next_documents_were_deleted(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    process(processor, *documents.put(*(result(n, status_put(f"{n}"), ms=n) for n in (1, 2, 3))))
    documents.held.clear()
    process(processor, *documents.put(result(3, ms=4)))
    assert not client.exists(KEY)


def test_invalid_next_document_is_skipped_until_it_is_corrected(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    process(processor, *documents.put(*(result(n, status_put(f"{n}"), ms=n) for n in (1, 2, 3))))
    documents.put(rejected(2, ms=5))
    process(processor, *documents.put(result(3, ms=4)))
    assert status(client) == "1"
    process(processor, *documents.put(result(2, status_put("mended"), ms=6)))
    assert status(client) == "mended"


@pytest.mark.parametrize(
    "now", [None, result(2, status_put("2", OTHER), ms=500), result(2, status_put("2"), ms=500)]
)
def test_holder_that_was_deleted_moved_or_dated_back_loses_its_key(
    processor: Processor, documents: Documents, client: redis.Redis, now: TransformResult | None
) -> None:
    """The holder is read again before an older claim loses against it."""
    process(processor, *documents.put(result(2, status_put("2"), ms=2_000)))
    documents.held.clear()
    if now is not None:
        documents.put(now)
    process(processor, *documents.put(result(1, status_put("1"), ms=1_000)))
    assert status(client) == "1"
    assert status(client, OTHER) == ("2" if now and now.writes[0].key == OTHER else None)


def test_holder_that_was_dated_back_keeps_its_claim(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    process(processor, *documents.put(result(2, status_put("2"), ms=2_000)))
    documents.put(result(2, status_put("2 again"), ms=500))
    process(processor, *documents.put(result(1, status_put("1"), ms=1_000)))
    process(processor, *documents.put(result(1, ms=3_000)))
    assert status(client) == "2 again"


def test_holder_without_record_loses_a_key_it_does_not_claim(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    process(processor, *documents.put(result(2, status_put("2"), ms=2_000)))
    client.delete(record_key(result(2).document))
    documents.put(result(2, status_put("2", OTHER), ms=3_000))
    process(processor, *documents.put(result(1, status_put("1"), ms=1_000)))
    assert status(client) == "1"


def test_invalid_holder_keeps_its_key(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Once it is corrected and leaves, the older claim is written."""
    process(processor, *documents.put(result(2, status_put("2"), ms=2_000)))
    documents.put(rejected(2, ms=3_000))
    lost = documents.put(result(1, status_put("1"), ms=1_000))
    outcome = process(processor, *lost)
    assert status(client) == "2"
    assert outcome.handled == [lost[0].id]
    assert process(processor, *lost).processed == 0, "it is done, although it lost"
    process(processor, *documents.put(result(2, ms=4_000)))
    assert status(client) == "1"


def test_newer_claim_displaces_an_invalid_holder(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Its content does not come back when the newer document leaves."""
    process(processor, *documents.put(result(2, status_put("2"), ms=2_000)))
    documents.put(rejected(2, ms=5_000))
    process(processor, *documents.put(result(1, status_put("1"), ms=3_000)))
    assert status(client) == "1"
    process(processor, *documents.put(result(1, ms=4_000)))
    assert not client.exists(KEY)


def test_kept_key_is_replaced_by_a_newer_claim_only(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    keep = Keep("config:api", KEY)
    process(processor, *documents.put(result(2, status_put("2"), ms=2_000)))
    process(processor, *documents.put(result(2, keep, generation_request("item"), ms=3_000)))
    assert status(client) == "2"
    process(processor, *documents.put(result(1, status_put("1"), ms=1_000)))
    assert status(client) == "2"
    process(processor, *documents.put(result(3, status_put("3"), ms=2_500)))
    assert status(client) == "3"
    process(processor, *documents.put(result(3, ms=4_000)))
    assert status(client) == "1", "the kept content does not come back"


def test_document_cannot_keep_a_key_it_never_wrote(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    process(processor, *documents.put(result(2, Keep("config:api", KEY), ms=2_000)))
    process(processor, *documents.put(result(1, status_put("1"), ms=1_000)))
    assert status(client) == "1"


@pytest.mark.parametrize("later", [rejected, lambda one: result(one, Keep("config:api", KEY))])
@pytest.mark.parametrize(("holder", "claimant"), [(7, IDS[0]), (IDS[0], 7)])
def test_claim_at_the_date_of_an_unreadable_holder_waits_for_it(
    processor: Processor, documents: Documents, client: redis.Redis, holder: Any, claimant: Any, later: Any
) -> None:
    """Only MongoDB knows the order of `_id`s of several types, so the holder keeps the key."""
    process(processor, *documents.put(result(holder, status_put("holder"))))
    documents.put(later(holder)._replace(timestamp="2000", ms=2_000))
    process(processor, *documents.put(result(claimant, status_put("claimant"))))
    assert status(client) == "holder"
    process(processor, *documents.put(result(holder, ms=3_000)))
    assert status(client) == "claimant"


@pytest.mark.parametrize("source", ["second", "unknown"])
def test_holder_of_another_collection_is_read_again(
    processor: Processor, documents: Documents, client: redis.Redis, source: str
) -> None:
    """A holder of a collection that the settings do not name keeps the key."""
    other = result(2, status_put("2"), ms=2_000, source=source)
    process(processor, *documents.put(other))
    process(processor, *documents.put(result(1, status_put("1"), ms=1_000)))
    assert status(client) == "2"
    del documents.held[other.document]
    process(processor, *documents.put(result(1, status_put("1"), ms=1_001)))
    assert status(client) == ("1" if source == "second" else "2")


@pytest.mark.parametrize("source", ["second", "unknown"])
def test_next_document_of_another_collection_is_read_again(
    processor: Processor, documents: Documents, client: redis.Redis, source: str
) -> None:
    """A document of a collection that the settings do not name is skipped."""
    process(
        processor,
        *documents.put(result(1, status_put("1"), source=source), result(2, status_put("2"), ms=2_000)),
    )
    process(processor, *documents.put(result(2, ms=3_000)))
    assert status(client) == ("1" if source == "second" else None)


def test_document_that_changes_while_it_blocks_a_key_is_read_again(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """The key is never absent meanwhile."""
    process(
        processor,
        *documents.put(result(1, status_put("successor")), result(2, status_put("holder"), ms=2_000)),
    )
    page = documents.put(result(2, ms=3_000))
    seen, turns = [], count()

    def other_writer() -> None:
        seen.append(status(client))
        if next(turns) < 3:
            successor = result(1, status_put("successor"), ms=1_000 + len(seen))
            documents.held[successor.document] = successor
            processor.writer.record([successor], processor.now(), confirmed=True)

    documents.after_read = other_writer
    process(processor, *page)
    assert len(seen) > 1
    assert None not in seen
    assert status(client) == "successor"


def test_key_is_incomplete_if_its_register_dropped_claims(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """After all claims in the register have left."""
    page = documents.put(*(result(n, status_put(f"{n}"), ms=n) for n in range(1, 21)))
    assert process(processor, *page).incomplete == 0
    assert status(client) == "20"
    documents.put(*(result(n, ms=100 + n) for n in range(13, 21)))
    outcome = process(processor, *(documents.held[result(n).document] for n in range(13, 21)))
    assert outcome.incomplete == 1
    assert not client.exists(KEY)


def test_full_register_keeps_the_newest_claims(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Claims arrive one by one, the newest first."""
    for number in range(20, 0, -1):
        process(processor, *documents.put(result(number, status_put(f"{number}"), ms=number)))
        assert status(client) == "20"
    lines: Any = client.get(owner_key(KEY))
    kept = {line.split()[1] for line in lines.splitlines() if line.startswith("+")}
    assert kept == {f"{number}" for number in range(13, 21)}
