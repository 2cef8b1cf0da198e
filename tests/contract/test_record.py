"""The records of documents: which versions proceed, and which keys they give up."""

from typing import Any

import pytest
import redis
from bson import ObjectId

from etl.cache.keys import record_key
from etl.cache.writer import DEADLINE_SECONDS, DONE, QUEUED, STALE, Answer, CacheWriter
from etl.model.result import TransformResult, gone
from schemas.operations import Enqueue, Evict, Keep, Put
from tests.support.results import result

PROCEED = 0
A, B, C = (Put("config:api", f"config:api:{name}", {"status": name}) for name in "abc")
LATE = int(DEADLINE_SECONDS * 1_000_000)
ABOUT = 2_000_000  # microseconds that a slow machine may lose


def answer(
    writer: CacheWriter, version: TransformResult, read_at: int | None = None, *, confirmed: bool = False
) -> Answer:
    """The answer of the script for one version, by default one that is read now."""
    read_at = read_at or writer.now()
    return writer.record([version], read_at, confirmed=confirmed).answers[0]


def finish(writer: CacheWriter, version: TransformResult) -> None:
    """Record a version and mark it as done."""
    record = writer.record([version], writer.now(), confirmed=True)
    writer.mark_done([(version, record.at[0])])


def test_new_version_proceeds(writer: CacheWriter) -> None:
    """Also a newer one with the same claims."""
    assert answer(writer, result(1, A)) == PROCEED
    assert answer(writer, result(1, A, ms=2_000)) == PROCEED


def test_version_proceeds_until_it_is_done(writer: CacheWriter) -> None:
    """A version may be recorded but not written yet."""
    version = result(1, A)
    assert [answer(writer, version) for _ in range(2)] == [PROCEED, PROCEED]
    finish(writer, version)
    assert [answer(writer, version) for _ in range(2)] == [DONE, DONE]
    assert answer(writer, result(1, A, ms=1_001)) == PROCEED


def test_keys_that_are_no_longer_claimed_are_given_up(writer: CacheWriter) -> None:
    """In the order of the claims; evictions and queues are claims too."""
    pushes = Enqueue("queue:ai_generation", "queue:ai_generation:alta", "item")
    answer(writer, result(1, A, B, Evict("config:api", "config:api:d"), pushes))
    given_up = f"config:api:a config:api:d {QUEUED}queue:ai_generation:alta"
    assert answer(writer, result(1, B, C, ms=2_000)) == given_up


def test_kept_key_is_not_given_up(writer: CacheWriter) -> None:
    answer(writer, result(1, A, B))
    assert answer(writer, result(1, Keep("config:api", "config:api:a"), ms=2_000)) == "config:api:b"
    assert answer(writer, result(1, ms=3_000)) == "config:api:a config:api:b"


def test_given_up_keys_are_returned_until_the_version_is_done(writer: CacheWriter) -> None:
    """If a writer dies before it has released them, the next one does so, also with a later version."""
    answer(writer, result(1, A))
    assert [answer(writer, result(1, B, ms=2_000)) for _ in range(2)] == ["config:api:a"] * 2
    assert answer(writer, result(1, C, ms=3_000)) == "config:api:b config:api:a"
    finish(writer, result(1, C, ms=3_000))
    assert answer(writer, result(1, ms=4_000)) == "config:api:c"


def test_same_version_may_claim_other_keys(writer: CacheWriter) -> None:
    """After a change of the settings or the program. The old keys are given up."""
    finish(writer, result(1, A))
    assert answer(writer, result(1, B)) == "config:api:a"
    assert answer(writer, result(1, A)) == "config:api:b"


def test_read_before_the_record_was_written_is_stale(writer: CacheWriter) -> None:
    """Whatever its date: another writer has read the document later."""
    early = writer.now()
    answer(writer, result(1, A, ms=2_000))
    assert answer(writer, result(1, A, ms=3_000), early) == STALE
    assert answer(writer, result(1, A, ms=1_000), early, confirmed=True) == STALE
    assert answer(writer, gone(result(1).document), early, confirmed=True) == STALE
    assert answer(writer, result(1, A, ms=2_000), early) == PROCEED, "it says the same"
    assert answer(writer, result(1, A, ms=3_000)) == PROCEED


def test_read_in_the_microsecond_of_a_record_is_stale(writer: CacheWriter) -> None:
    """It may have happened before the record."""
    [at] = writer.record([result(1, A)], writer.now(), confirmed=False).at
    assert answer(writer, result(1, A, ms=2_000), int(at)) == STALE
    assert answer(writer, result(1, A, ms=2_000), int(at) + 1) == PROCEED


def test_repeated_record_renews_its_moment(writer: CacheWriter) -> None:
    """A read between both is stale."""
    answer(writer, result(1, A))
    between = writer.now()
    answer(writer, result(1, A))
    assert answer(writer, result(1, A, ms=2_000), between) == STALE


def test_older_version_proceeds_if_it_is_confirmed(writer: CacheWriter) -> None:
    """A page may come from a deposed primary; a confirmed read shows that the date was set back."""
    answer(writer, result(1, A, ms=2_000))
    assert answer(writer, result(1, A, ms=1_000)) == STALE
    assert answer(writer, result(1, A, ms=1_000), confirmed=True) == PROCEED
    assert answer(writer, result(1, A, ms=2_000)) == PROCEED, "what is recorded now is the older one"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (-5, -6, STALE),
        (-6, -5, PROCEED),
        (-1, 1, PROCEED),
        (2**53, 2**53 - 1, STALE),
        (99, 100, PROCEED),
        (1_000, 999, STALE),
    ],
)
def test_dates_are_compared_as_numbers(writer: CacheWriter, first: int, second: int, expected: int) -> None:
    """Before 1970 and far beyond today."""
    answer(writer, result(1, A, ms=first))
    assert answer(writer, result(1, A, ms=second)) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("<null", "1000", PROCEED),
        ("1000", "<null", STALE),
        ("1000", ">timestamp", PROCEED),
        (">timestamp", "1000", STALE),
        ("<null", ">timestamp", STALE),  # not compared, but read again
        (">timestamp", "<null", STALE),
    ],
)
def test_other_timestamps_are_before_or_after_all_dates(
    writer: CacheWriter, first: str, second: str, expected: int
) -> None:
    """As in MongoDB."""
    answer(writer, result(1, A)._replace(timestamp=first, ms=None))
    assert answer(writer, result(1, A)._replace(timestamp=second, ms=None)) == expected


def test_deleted_document_gives_up_all_keys(writer: CacheWriter) -> None:
    """Inserted again it proceeds, whatever its date."""
    version = result(1, A, B, ms=5_000)
    finish(writer, version)
    assert answer(writer, gone(version.document), confirmed=True) == "config:api:a config:api:b"
    assert answer(writer, version) == STALE, "the page may have been read before the deletion"
    assert answer(writer, result(1, A, ms=1_000), confirmed=True) == "config:api:b"


def test_record_written_meanwhile_is_not_marked_as_done(writer: CacheWriter) -> None:
    """Not even by the same version: the other writer may need the claims that would be removed."""
    version = result(1, A)
    answer(writer, result(1, B, ms=500))
    record = writer.record([version], writer.now(), confirmed=False)
    answer(writer, version)
    writer.mark_done([(version, record.at[0])])
    assert answer(writer, version) == "config:api:b"


def test_missing_record_is_not_marked_as_done(writer: CacheWriter, client: redis.Redis) -> None:
    """Redis was flushed, or has evicted it. The version proceeds again."""
    version = result(1, A)
    record = writer.record([version], writer.now(), confirmed=False)
    client.flushdb()
    writer.mark_done([(version, record.at[0])])
    assert answer(writer, version) == PROCEED


@pytest.mark.parametrize("moment", [-LATE - 1, ABOUT])
def test_read_that_is_too_old_or_in_the_future_is_stale(
    writer: CacheWriter, client: redis.Redis, moment: int
) -> None:
    """Nothing is recorded. The clock of Redis may have been set back."""
    record = writer.record([result(n, A) for n in range(60)], writer.now() + moment, confirmed=True)
    assert record.answers == [STALE] * 60
    assert client.dbsize() == 0


def test_read_within_the_deadline_proceeds(writer: CacheWriter) -> None:
    assert answer(writer, result(1, A), writer.now() - LATE + ABOUT) == PROCEED


def test_record_in_the_future_refuses_nothing(writer: CacheWriter, client: redis.Redis) -> None:
    """The clock of Redis has been set back since it was written."""
    version = result(1, A, ms=2_000)
    ahead = writer.now() + 3_600_000_000
    client.set(record_key(version.document), f"0{ahead} 2000 config:api:a ")
    assert answer(writer, result(1, A, ms=3_000)) == PROCEED


def test_record_key_of_another_type_is_replaced(writer: CacheWriter, client: redis.Redis) -> None:
    """Another program uses the name of the record. Other documents of the call are recorded too."""
    taken = record_key(result(1).document)
    client.hset(taken, "a", "b")
    record = writer.record([result(1, A), result(2, A)], writer.now(), confirmed=False)
    assert record.answers == [PROCEED, PROCEED]
    assert client.type(taken) == "string"


def test_many_documents_keep_their_order(writer: CacheWriter) -> None:
    versions = [result(n, A if n % 2 else B, ms=1_000 + n) for n in range(130)]
    finished = versions[::3]
    record = writer.record(finished, writer.now(), confirmed=False)
    writer.mark_done([*zip(finished, record.at, strict=True)])
    answers = writer.record(versions, writer.now(), confirmed=False).answers
    assert answers == [DONE if n % 3 == 0 else PROCEED for n in range(130)]
    assert writer.record([], writer.now(), confirmed=False).answers == []


def test_held_locks_are_returned(writer: CacheWriter, client: redis.Redis) -> None:
    """Those of the documents of the call."""
    client.set("lock:b", "17")
    client.set("lock:c", "17")
    versions = [result(n, lock=lock) for n, lock in enumerate(["lock:a", "lock:b", "lock:b", None])]
    assert writer.record(versions, writer.now(), confirmed=False).held == {"lock:b"}
    assert writer.held(["lock:a", "lock:b", "lock:c"]) == {"lock:b", "lock:c"}
    assert writer.held([]) == frozenset()


def test_record_outlives_the_keys_of_its_document(writer: CacheWriter, client: redis.Redis) -> None:
    """By `memory_seconds` and twice the deadline; a record without claims has that TTL."""
    rest = 1_440 + 2 * DEADLINE_SECONDS
    messages = Put("ai:campaign_messages", "ai:campaign_messages:a:b", ["1"])
    writer.record([result(1, A, messages), result(2, A), result(3)], writer.now(), confirmed=False)
    ttls: list[Any] = [client.ttl(record_key(result(n).document)) for n in (1, 2, 3)]
    assert ttls == pytest.approx([10_800 + rest, 3_600 + rest, rest], abs=5)


def test_done_mark_does_not_change_the_ttl(writer: CacheWriter, client: redis.Redis) -> None:
    """The next record of the same version renews it."""
    version, key = result(1, A), record_key(result(1).document)
    record = writer.record([version], writer.now(), confirmed=False)
    client.expire(key, 50)
    writer.mark_done([(version, record.at[0])])
    ttl: Any = client.ttl(key)
    assert 40 < ttl <= 50
    assert answer(writer, version) == DONE
    ttl = client.ttl(key)
    assert ttl > 3_600


def test_ids_are_distinguished_by_type(writer: CacheWriter) -> None:
    """An ObjectId and its hex are different documents."""
    name = "5f5f5f5f5f5f5f5f5f5f5f5f"
    finish(writer, result(ObjectId(name), A))
    assert answer(writer, result(name, A)) == PROCEED
    assert answer(writer, result(ObjectId(name), A, source="other")) == PROCEED
    assert answer(writer, result(ObjectId(name), A)) == DONE
