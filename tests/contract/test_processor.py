"""One batch of documents into the cache, over a fake Redis and a real one, beside other writers."""

from collections.abc import Callable, Collection
from itertools import count
from typing import Any

import pytest
import redis
from bson import ObjectId

from etl.cache.client import Wire
from etl.cache.keys import owner_key, record_key, requests_key
from etl.cache.writer import DEADLINE_SECONDS, CacheWriter
from etl.errors import TransientError
from etl.model.batch import BatchOutcome, Deferred, Rejected
from etl.model.result import TransformResult
from etl.sync.processor import Processor
from schemas.operations import Enqueue, Evict, Keep, Put, Reject
from tests.support.results import rejected, result
from tests.support.twins import NAME, Insistent

KEY = "config:api:a"
OTHER = "config:api:b"
LOCK = "lock:content_generation:c"
QUEUE = "queue:ai_generation:alta"
LATE = int(DEADLINE_SECONDS * 1_000_000)
KNOWN = (NAME, "second")
IDS = [ObjectId(f"{number:024x}") for number in range(20)]


class Documents:
    """The current version of each document, as reading it again gives it."""

    def __init__(self) -> None:
        self.held: dict[str, TransformResult] = {}
        self.reads: list[set[str]] = []
        self.after_read: Callable[[], None] = lambda: None

    def put(self, *versions: TransformResult) -> list[TransformResult]:
        """Write these versions, and read them as a page."""
        self.held |= {version.document: version for version in versions}
        return [*versions]

    def reread(self, names: Collection[str]) -> list[TransformResult]:
        """Those of these documents that there are, in order."""
        self.reads.append({*names})
        known = (name for name in names if name.partition(" ")[0] in KNOWN)
        found = [self.held[name] for name in known if name in self.held]
        self.after_read()
        return sorted(found, key=lambda one: (one.position.order(), one.document))


@pytest.fixture
def documents() -> Documents:
    """No document yet."""
    return Documents()


@pytest.fixture
def processor(writer: CacheWriter, documents: Documents) -> Processor:
    """Of one collection; a second one is known too."""
    return Processor(
        writer, NAME, documents.reread, lambda name: name.partition(" ")[0] in KNOWN, Insistent()
    )


def process(
    processor: Processor, *page: TransformResult, read_at: int | None = None, **flags: Any
) -> BatchOutcome:
    """Write a page, by default one that is read now and of documents that a delta meets again."""
    return processor.process(page, read_at or processor.now(), **{"remember_from": 0} | flags)


def says(text: str, key: str = KEY) -> Put:
    """A hash that tells what it is of."""
    return Put("config:api", key, {"status": text})


def status(client: redis.Redis, key: str = KEY) -> Any:
    """What the key says."""
    return client.hget(key, "status")


def asks(item: str, queue: str = QUEUE) -> Enqueue:
    """A request."""
    return Enqueue("queue:ai_generation", queue, item)


def test_what_a_page_comes_to(processor: Processor, client: redis.Redis) -> None:
    """Every document is counted as what it became, and its keys are written."""
    messages = Put("ai:campaign_messages", "ai:campaign_messages:c:s", ["1", "2"])
    meta = Evict("ai:generation:meta", "ai:generation:meta:c:s")
    bad = rejected(4)
    outcome = process(
        processor,
        result(1, says("a")),
        result(2, messages, meta),
        result(3, Evict("config:api", OTHER)),
        bad,
        result(5, asks("item")),
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


def test_a_version_that_was_applied_is_left_alone(processor: Processor, client: redis.Redis) -> None:
    """It counts as handled, and what its keys hold by now is not looked at."""
    version = result(1, says("a"), asks("item"))
    process(processor, version)
    client.delete(KEY, QUEUE)
    outcome = process(processor, version)
    assert outcome == BatchOutcome(handled=[version.id])
    assert not client.exists(KEY, QUEUE)


def test_what_is_done_is_written_again_where_it_is_not_trusted(
    processor: Processor, client: redis.Redis
) -> None:
    """As a refresh and a backfill do; its request was made."""
    version = result(1, says("a"), asks("item"))
    process(processor, version)
    client.delete(KEY, QUEUE)
    outcome = process(processor, version, trust=False)
    assert (outcome.processed, outcome.written, outcome.enqueued) == (1, 1, 0)
    assert status(client) == "a"
    assert not client.exists(QUEUE)


@pytest.mark.parametrize(("remember_from", "again"), [(None, 3), (1_001, 2), (0, 1)])
def test_only_what_a_delta_meets_again_is_remembered(
    processor: Processor, remember_from: int | None, again: int
) -> None:
    """By its date; what has none is never met by a delta."""
    page = [
        result(1, says("a"), ms=1_000),
        result(2, says("b", OTHER), ms=1_001),
        result(3)._replace(ms=None, timestamp="<null"),
    ]
    process(processor, *page, remember_from=remember_from)
    assert process(processor, *page).processed == again


def test_a_newer_version_replaces_all_of_the_older_one(processor: Processor, client: redis.Redis) -> None:
    """Keys that it does not claim any more go, and what it fills is filled anew."""
    process(processor, result(1, says("a"), says("b", OTHER)))
    outcome = process(processor, result(1, says("c"), ms=2_000))
    assert status(client) == "c"
    assert not client.exists(OTHER)
    assert (outcome.processed, outcome.entries) == (1, {"config:api": 1})


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_the_newest_of_several_documents_is_written(
    processor: Processor, documents: Documents, client: redis.Redis, order: tuple[int, int]
) -> None:
    """In whatever order their pages come; the page of the older one reads the newer one again."""
    documents.put(*(result(n, says(f"{n}"), ms=1_000 + n) for n in (1, 2)))
    for number in order:
        process(processor, documents.held[result(number).document])
    assert status(client) == "2"
    assert documents.reads == ([] if order == (1, 2) else [{result(1).document, result(2).document}])


def test_the_newest_of_a_page_is_written(processor: Processor, client: redis.Redis) -> None:
    """By the order of the page, which MongoDB has made over every type of `_id`."""
    ids: list[Any] = [7, "x", {"a": 1}, ObjectId("f" * 24)]
    process(processor, *(result(one, says(repr(one))) for one in ids))
    assert status(client) == repr(ids[-1])


def test_one_date_and_ids_of_several_types_on_several_pages(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """The newest in MongoDB's order is written, whatever the order of the pages."""
    ids: list[Any] = [7, "x", {"a": 1}, ObjectId("f" * 24)]
    page = documents.put(*(result(one, says(repr(one))) for one in ids))
    for one in (2, 0, 3, 1):
        process(processor, page[one])
    assert status(client) == repr(ids[-1])


def test_the_next_newest_inherits_a_key(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Where its holder moves away: it is read again, for this key only, and its request is not made twice."""
    heir = result(1, says("heir"), says("more", OTHER), asks("item"), ms=1_000)
    process(processor, *documents.put(heir, result(2, says("holder"), ms=2_000)))
    client.delete(OTHER, QUEUE)
    moved = documents.put(result(2, says("moved", "config:api:c"), ms=3_000))
    outcome = process(processor, *moved)
    assert (status(client), status(client, "config:api:c")) == ("heir", "moved")
    assert not client.exists(OTHER, QUEUE), "of these the heir was done"
    assert (outcome.processed, outcome.enqueued, outcome.handled) == (1, 0, [moved[0].id])


def test_an_heir_that_has_changed_meanwhile_is_applied_as_it_is_now(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """No cycle has met its new version yet: it is recorded, and all that it says is done."""
    process(
        processor, *documents.put(result(1, says("heir"), says("b", OTHER)), result(2, says("x"), ms=2_000))
    )
    documents.put(result(1, says("heir now"), asks("item"), ms=4_000))
    outcome = process(processor, *documents.put(result(2, ms=3_000)))
    assert status(client) == "heir now"
    assert not client.exists(OTHER)
    assert client.lrange(QUEUE, 0, -1) == ["item"]
    assert outcome.handled == [result(2).id]
    assert process(processor, documents.held[result(1).document]).processed == 0, "it is done"


def test_an_heir_that_has_gone_elsewhere_leaves_the_key(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Then the next one inherits, or none."""
    page = documents.put(*(result(n, says(f"{n}"), ms=n) for n in (1, 2, 3)))
    process(processor, *page)
    documents.put(result(2, says("2", OTHER), ms=5))
    process(processor, *documents.put(result(3, ms=4)))
    assert (status(client), status(client, OTHER)) == ("1", "2")


def test_heirs_that_were_deleted_do_not_inherit(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """The key is removed where none is left."""
    process(processor, *documents.put(*(result(n, says(f"{n}"), ms=n) for n in (1, 2, 3))))
    documents.held.clear()
    process(processor, *documents.put(result(3, ms=4)))
    assert not client.exists(KEY)


def test_an_heir_that_is_invalid_does_not_inherit(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """The next one does; mended, it takes the key again."""
    process(processor, *documents.put(*(result(n, says(f"{n}"), ms=n) for n in (1, 2, 3))))
    documents.put(rejected(2, ms=5))
    process(processor, *documents.put(result(3, ms=4)))
    assert status(client) == "1"
    process(processor, *documents.put(result(2, says("mended"), ms=6)))
    assert status(client) == "mended"


@pytest.mark.parametrize("now", [None, result(2, says("2", OTHER), ms=500), result(2, says("2"), ms=500)])
def test_a_holder_that_is_not_what_it_was_gives_way(
    processor: Processor, documents: Documents, client: redis.Redis, now: TransformResult | None
) -> None:
    """Deleted, moved or dated back unnoticed: a claim that it would refuse finds that."""
    process(processor, *documents.put(result(2, says("2"), ms=2_000)))
    documents.held.clear()
    if now is not None:
        documents.put(now)
    process(processor, *documents.put(result(1, says("1"), ms=1_000)))
    assert status(client) == "1"
    assert status(client, OTHER) == ("2" if now and now.writes[0].key == OTHER else None)


def test_a_holder_that_was_dated_back_is_an_heir(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """It claims the key below the other."""
    process(processor, *documents.put(result(2, says("2"), ms=2_000)))
    documents.put(result(2, says("2 again"), ms=500))
    process(processor, *documents.put(result(1, says("1"), ms=1_000)))
    process(processor, *documents.put(result(1, ms=3_000)))
    assert status(client) == "2 again"


def test_a_holder_whose_record_has_expired_leaves_what_it_does_not_claim(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """It was read again for that key, so that is known all the same."""
    process(processor, *documents.put(result(2, says("2"), ms=2_000)))
    client.delete(record_key(result(2).document))
    documents.put(result(2, says("2", OTHER), ms=3_000))
    process(processor, *documents.put(result(1, says("1"), ms=1_000)))
    assert status(client) == "1"


def test_a_holder_that_is_invalid_keeps_the_key(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Until it is mended and goes: then the one that lost against it inherits."""
    process(processor, *documents.put(result(2, says("2"), ms=2_000)))
    documents.put(rejected(2, ms=3_000))
    lost = documents.put(result(1, says("1"), ms=1_000))
    outcome = process(processor, *lost)
    assert status(client) == "2"
    assert outcome.handled == [lost[0].id]
    assert process(processor, *lost).processed == 0, "it has lost, and that is done"
    process(processor, *documents.put(result(2, ms=4_000)))
    assert status(client) == "1"


def test_a_newer_claim_displaces_an_invalid_holder(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """It is newer than what that has written; once it goes the invalid one does not come back."""
    process(processor, *documents.put(result(2, says("2"), ms=2_000)))
    documents.put(rejected(2, ms=5_000))
    process(processor, *documents.put(result(1, says("1"), ms=3_000)))
    assert status(client) == "1"
    process(processor, *documents.put(result(1, ms=4_000)))
    assert not client.exists(KEY)


def test_a_key_that_its_holder_keeps_stays(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """It asks for new messages and leaves the old ones: an older claim loses against them, a newer one not."""
    keep = Keep("config:api", KEY)
    process(processor, *documents.put(result(2, says("2"), ms=2_000)))
    process(processor, *documents.put(result(2, keep, asks("item"), ms=3_000)))
    assert status(client) == "2"
    process(processor, *documents.put(result(1, says("1"), ms=1_000)))
    assert status(client) == "2"
    process(processor, *documents.put(result(3, says("3"), ms=2_500)))
    assert status(client) == "3"
    process(processor, *documents.put(result(3, ms=4_000)))
    assert status(client) == "1", "what was kept does not come back"


def test_a_document_that_keeps_what_it_never_wrote_keeps_nothing(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Any claim is written."""
    process(processor, *documents.put(result(2, Keep("config:api", KEY), ms=2_000)))
    process(processor, *documents.put(result(1, says("1"), ms=1_000)))
    assert status(client) == "1"


@pytest.mark.parametrize("later", [rejected, lambda one: result(one, Keep("config:api", KEY))])
@pytest.mark.parametrize(("holder", "claimant"), [(7, IDS[0]), (IDS[0], 7)])
def test_a_claim_of_the_date_of_a_holder_that_cannot_be_had(
    processor: Processor, documents: Documents, client: redis.Redis, holder: Any, claimant: Any, later: Any
) -> None:
    """Ids of several types, whose order only MongoDB knows: the holder keeps the key; the other is its heir."""
    process(processor, *documents.put(result(holder, says("holder"))))
    documents.put(later(holder)._replace(timestamp="2000", ms=2_000))
    process(processor, *documents.put(result(claimant, says("claimant"))))
    assert status(client) == "holder"
    process(processor, *documents.put(result(holder, ms=3_000)))
    assert status(client) == "claimant"


@pytest.mark.parametrize("source", ["second", "unknown"])
def test_a_holder_of_another_collection(
    processor: Processor, documents: Documents, client: redis.Redis, source: str
) -> None:
    """It is read again; one that the settings do not name cannot be, and keeps the key."""
    other = result(2, says("2"), ms=2_000, source=source)
    process(processor, *documents.put(other))
    process(processor, *documents.put(result(1, says("1"), ms=1_000)))
    assert status(client) == "2"
    del documents.held[other.document]
    process(processor, *documents.put(result(1, says("1"), ms=1_001)))
    assert status(client) == ("1" if source == "second" else "2")


@pytest.mark.parametrize("source", ["second", "unknown"])
def test_an_heir_of_another_collection(
    processor: Processor, documents: Documents, client: redis.Redis, source: str
) -> None:
    """It is read again; one that the settings do not name cannot be, and does not inherit."""
    process(processor, *documents.put(result(1, says("1"), source=source), result(2, says("2"), ms=2_000)))
    process(processor, *documents.put(result(2, ms=3_000)))
    assert status(client) == ("1" if source == "second" else None)


def test_a_document_that_is_met_twice_is_read_again(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """It was written while its page was read: it counts once, as what it is now."""
    first, second = result(1, says("first"), ms=1_000), result(1, says("second"), ms=2_000)
    documents.put(result(1, says("third"), ms=3_000))
    outcome = process(processor, first, result(2, says("b", OTHER)), second)
    assert (status(client), status(client, OTHER)) == ("third", "b")
    assert (outcome.processed, sorted(outcome.handled)) == (2, sorted([first.id, result(2).id]))
    documents.held.clear()
    outcome = process(processor, first, second)
    assert (outcome.processed, outcome.handled) == (0, [first.id])
    assert not client.exists(KEY)


def test_a_page_that_was_read_too_early_is_read_again(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """A worker slept in between: only what its documents are now is written."""
    early = processor.now()
    slept = [result(n, says("old", f"config:api:{n}"), asks(f"old {n}"), ms=n) for n in (1, 2, 3)]
    process(processor, *documents.put(result(1, says("new", "config:api:1"), ms=10)))
    process(processor, *documents.put(result(2, says("new", "config:api:9"), ms=11)))
    outcome = process(processor, *slept, read_at=early)
    assert status(client, "config:api:1") == "new"
    assert not client.exists("config:api:2")
    assert status(client, "config:api:9") == "new"
    assert status(client, "config:api:3") == "old", "no one has written that: it may be as it was"
    assert client.lrange(QUEUE, 0, -1) == ["old 3"]
    assert len(outcome.handled) == 3


def test_a_page_that_is_later_than_the_deadline_is_read_again(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """All of it: what is known of its documents may have expired."""
    page = [result(n, says("old", f"config:api:{n}"), ms=n) for n in (1, 2)]
    documents.put(result(1, says("new", "config:api:1"), ms=10))
    outcome = process(processor, *page, read_at=processor.now() - LATE - 1)
    assert status(client, "config:api:1") == "new"
    assert not client.exists("config:api:2")
    assert documents.reads == [{one.document for one in page}]
    assert (outcome.processed, outcome.written) == (1, 1)


def test_a_date_that_was_set_back_is_believed(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Once the document is read again by its `_id`: a page may come from a deposed primary."""
    process(processor, *documents.put(result(1, says("ahead"), ms=9_000)))
    stale = result(1, says("stale"), ms=1_000)
    process(processor, stale)
    assert status(client) == "ahead"
    process(processor, *documents.put(stale))
    assert status(client) == "stale"


def test_documents_under_a_lock_are_deferred(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Nothing of them is written, neighbours are; read again once the lock is gone, all of it is."""
    client.set(LOCK, "17")
    locked = result(1, says("a"), asks("item"), lock=LOCK)
    page = documents.put(locked, result(2, says("b", OTHER)))
    outcome = process(processor, *page)
    assert outcome.deferred == [Deferred(locked.id, LOCK)]
    assert (outcome.processed, outcome.handled) == (1, [result(2).id])
    assert not client.exists(KEY, QUEUE)
    assert process(processor, *page).deferred == [Deferred(locked.id, LOCK)], "it is not done"

    client.delete(LOCK)
    read_at, results = processor.read([locked.id])
    outcome = process(processor, *results, read_at=read_at, trust=False)
    assert (outcome.deferred, outcome.handled) == ([], [locked.id])
    assert (status(client), client.lrange(QUEUE, 0, -1)) == ("a", ["item"])


def test_what_a_locked_document_gives_up_waits_too(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """It is known still when the lock is gone."""
    process(processor, *documents.put(result(1, says("a"), lock=LOCK)))
    client.set(LOCK, "17")
    moved = documents.put(result(1, says("a", OTHER), lock=LOCK, ms=2_000))
    process(processor, *moved)
    assert status(client) == "a"
    client.delete(LOCK)
    process(processor, *moved)
    assert status(client, OTHER) == "a"
    assert not client.exists(KEY)


def test_a_locked_holder_keeps_its_key(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """An older claim on the same page loses against what it has written, and is noted."""
    process(processor, *documents.put(result(2, says("2"), ms=2_000, lock=LOCK)))
    client.set(LOCK, "17")
    page = documents.put(result(1, says("1"), ms=1_000), result(2, says("2 new"), ms=3_000, lock=LOCK))
    outcome = process(processor, *page)
    assert status(client) == "2"
    assert outcome.deferred == [Deferred(result(2).id, LOCK)]
    client.delete(LOCK)
    process(processor, *documents.put(result(2, ms=4_000, lock=LOCK)))
    assert status(client) == "1"


def test_a_locked_heir_inherits_without_a_gap(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """On the same page as the holder that goes: the key is not removed because of the lock."""
    process(processor, *documents.put(result(1, says("1"), lock=LOCK), result(2, says("2"), ms=2_000)))
    client.set(LOCK, "17")
    page = documents.put(result(2, ms=3_000), result(1, says("1 new"), ms=4_000, lock=LOCK))
    process(processor, *page)
    assert status(client) in {"1", "1 new", "2"}
    client.delete(LOCK)
    process(processor, *page)
    assert status(client) == "1 new"


def test_a_locked_heir_of_another_page_inherits_that_key_alone(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """What else it claims and asks for waits for its lock, and is not forgotten."""
    process(processor, *documents.put(result(1, says("1"), lock=LOCK), result(2, says("2"), ms=2_000)))
    client.set(LOCK, "17")
    heir = result(1, says("1 new"), says("other", OTHER), asks("item"), ms=1_500, lock=LOCK)
    documents.put(heir)
    process(processor, *documents.put(result(2, ms=3_000)))
    assert (status(client), client.exists(OTHER), client.llen(QUEUE)) == ("1 new", 0, 0)
    client.delete(LOCK)
    process(processor, heir)
    assert (status(client, OTHER), client.llen(QUEUE)) == ("other", 1)


def test_a_blocker_that_changes_while_it_is_read_is_read_once_more(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Another writer records it in between: it is valid, so the key is never without content."""
    process(processor, *documents.put(result(1, says("heir")), result(2, says("holder"), ms=2_000)))
    page = documents.put(result(2, ms=3_000))
    seen, turns = [], count()

    def other_writer() -> None:
        seen.append(status(client))
        if next(turns) < 3:
            heir = result(1, says("heir"), ms=1_000 + len(seen))
            documents.held[heir.document] = heir
            processor.writer.record([heir], processor.now(), confirmed=True)

    documents.after_read = other_writer
    process(processor, *page)
    assert len(seen) > 1
    assert None not in seen
    assert status(client) == "heir"


def test_documents_that_never_stand_still_end_the_batch(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """As an outage does, to be tried again."""
    version = result(1, says("a"))
    early, turns = processor.now(), count(2_000)

    def other_writer() -> None:
        process_other = result(1, says("b"), ms=next(turns))
        processor.writer.record([process_other], processor.now(), confirmed=True)

    documents.put(version)
    other_writer()
    documents.after_read = other_writer
    with pytest.raises(TransientError, match="change faster"):
        process(processor, version, read_at=early)
    assert not client.exists(KEY)


def test_more_claims_on_a_key_than_are_kept(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """The newest is written; once all that are known have left, the rest is told to be incomplete."""
    page = documents.put(*(result(n, says(f"{n}"), ms=n) for n in range(1, 21)))
    assert process(processor, *page).incomplete == 0
    assert status(client) == "20"
    documents.put(*(result(n, ms=100 + n) for n in range(13, 21)))
    outcome = process(processor, *(documents.held[result(n).document] for n in range(13, 21)))
    assert outcome.incomplete == 1
    assert not client.exists(KEY)


def test_a_claim_that_loses_against_nothing_but_a_full_register_is_no_conflict(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Claims that come one by one, the newest first, are read together with the holder each time."""
    for number in range(20, 0, -1):
        process(processor, *documents.put(result(number, says(f"{number}"), ms=number)))
        assert status(client) == "20"
    lines: Any = client.get(owner_key(KEY))
    kept = {line.split()[1] for line in lines.splitlines() if line.startswith("+")}
    assert kept == {f"{number}" for number in range(13, 21)}


def test_a_request_that_moves_to_another_queue(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Is made there too; a late writer of the older version makes none."""
    early = processor.now()
    older = result(1, asks("alta"), ms=1_000)
    process(processor, *documents.put(result(1, asks("baja", "queue:ai_generation:baja"), ms=2_000)))
    process(processor, older, read_at=early)
    assert not client.exists(QUEUE)
    assert client.lrange("queue:ai_generation:baja", 0, -1) == ["baja"]


def test_a_request_that_another_writer_has_overtaken_is_read_again(
    processor: Processor, documents: Documents, client: redis.Redis, wire: Wire
) -> None:
    """Its document has changed once more since: that version is queued, and no older one."""
    versions = [result(1, asks(f"item {ms}"), ms=ms) for ms in (1_000, 2_000, 3_000)]

    class Overtaken(CacheWriter):
        def apply(self, *arguments: Any) -> Any:
            if not client.exists(QUEUE):
                process(processor, *documents.put(versions[1]))
                documents.put(versions[2])
            return super().apply(*arguments)

    slow = Overtaken(wire, {"config:api": 60, "queue:ai_generation": None}, 60)
    outcome = process(Processor(slow, NAME, documents.reread, lambda _: True, Insistent()), versions[0])
    assert client.lrange(QUEUE, 0, -1) == ["item 2000", "item 3000"]
    assert (outcome.enqueued, outcome.processed) == (1, 1)


def test_a_queue_of_the_wrong_type_makes_a_dead_letter(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Of the documents that ask it, with what to do; mended, they are queued."""
    client.set(QUEUE, "a string")
    page = documents.put(result(1, asks("item")), result(2, says("b")))
    outcome = process(processor, *page)
    [refused] = outcome.rejected
    assert (refused.id, refused.reject.reason) == (
        result(1).id,
        "its queue holds something that is not a list: move it away",
    )
    assert (outcome.processed, outcome.handled) == (1, [result(2).id])
    client.delete(QUEUE)
    assert process(processor, *page).enqueued == 1


def test_a_page_whose_answers_were_lost_is_written_once(
    processor: Processor,
    documents: Documents,
    client: redis.Redis,
    wire: Wire,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every call is carried out twice: the same keys, and each request once."""
    exchange = wire.exchange

    def twice(commands: Any) -> Any:
        exchange(commands)
        return exchange(commands)

    process(processor, *documents.put(result(1, says("heir")), result(2, says("holder"), ms=2_000)))
    monkeypatch.setattr(wire, "exchange", twice)
    page = documents.put(result(2, says("c", OTHER), asks("item"), ms=3_000), result(3, asks("other")))
    outcome = process(processor, *page)
    assert (status(client), status(client, OTHER)) == ("heir", "c")
    assert client.lrange(QUEUE, 0, -1) == ["item", "other"]
    assert len(outcome.handled) == 2
    monkeypatch.undo()
    assert process(processor, *page).processed == 0


def test_documents_are_read_by_id(processor: Processor, documents: Documents) -> None:
    """Those that are gone among them, with a moment before that."""
    early = processor.now()
    there = documents.put(result(1, says("a")))
    read_at, found = processor.read([result(2).id, result(1).id])
    assert early <= read_at <= processor.now()
    assert {(one.id, one.timestamp) for one in found} == {(result(2).id, "gone"), (there[0].id, "1000")}


def test_what_is_passed_over_is_done(processor: Processor, client: redis.Redis) -> None:
    """Nothing of it is written, until a newer version comes."""
    version, bad = result(1, says("a"), asks("item")), rejected(2)
    processor.pass_over([version, bad], processor.now())
    assert not client.exists(KEY, QUEUE)
    assert process(processor, version).processed == 0
    assert process(processor, result(1, says("b"), ms=2_000)).processed == 1
    assert status(client) == "b"


def test_a_repair_reads_and_writes_what_is_claimed(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Whatever the registers say: those that do not claim a key leave it."""
    process(processor, *documents.put(result(1, says("1")), result(2, says("2"), ms=2_000)))
    client.hset(KEY, "status", "damaged")
    processor.repair({KEY: [result(1).document, result(2).document]})
    assert status(client) == "2"

    client.delete(*[record_key(result(n).document) for n in (1, 2)])
    documents.held.clear()
    processor.repair({KEY: [result(1).document, result(2).document]})
    assert not client.exists(KEY)


def sweep(processor: Processor) -> None:
    """All of the queue."""
    cursor = processor.sweep(QUEUE, "0")
    while cursor != "0":
        cursor = processor.sweep(QUEUE, cursor)


def test_requests_are_forgotten_once_they_guard_against_nothing(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Those of documents that still ask with the same version stay: they would be queued a second time."""
    pending = [result(number, asks(f"{number}")) for number in range(6)]
    process(processor, *documents.put(*pending))
    other = result(9, asks("9"), source="unknown")
    process(processor, *documents.put(other))
    documents.put(result(1, ms=2_000), result(2, asks("2"), ms=2_000), rejected(3, ms=2_000))
    del documents.held[pending[4].document]
    documents.put(result(5, asks("5", "queue:ai_generation:baja"), ms=1_000))
    register = requests_key(QUEUE)
    noted: Any = client.hgetall(register)
    assert len(noted) == 7

    sweep(processor)
    assert client.hgetall(register) == noted, "an older read may still arrive"

    old = processor.now() - LATE - 1
    client.hset(register, mapping={name: f"{old} {text.split()[1]}" for name, text in noted.items()})
    client.hset(register, "second 7", f"{old} -")
    sweep(processor)
    assert {*client.hgetall(register)} == {pending[0].document, other.document}
    assert process(processor, pending[0], trust=False).enqueued == 0


def test_a_request_that_is_made_while_it_is_swept_stays(
    processor: Processor, documents: Documents, client: redis.Redis
) -> None:
    """Between the look at its document and the end."""
    process(processor, *documents.put(result(1, asks("1"))))
    documents.put(result(1, ms=2_000))
    register = requests_key(QUEUE)
    client.hset(register, result(1).document, f"{processor.now() - LATE - 1} 1000")
    again = result(1, asks("again"), ms=3_000)

    def other_writer() -> None:
        process(processor, again)

    documents.after_read = other_writer
    sweep(processor)
    assert process(processor, again, trust=False).enqueued == 0
    assert client.lrange(QUEUE, 0, -1) == ["1", "again"]
