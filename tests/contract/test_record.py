"""The records of documents, over a fake Redis, a real one and a cluster: which version goes on and what it gives up."""

from typing import Any

import pytest
import redis
from bson import ObjectId

from etl.cache.keys import record_key
from etl.cache.writer import DEADLINE_SECONDS, DONE, QUEUED, STALE, Answer, CacheWriter
from etl.model.result import TransformResult, gone
from schemas.operations import Enqueue, Evict, Keep, Put
from tests.support.results import result

GO = 0
A, B, C = (Put("config:api", f"config:api:{name}", {"status": name}) for name in "abc")
LATE = int(DEADLINE_SECONDS * 1_000_000)
ABOUT = 2_000_000  # microseconds that a slow machine may lose


def answer(
    writer: CacheWriter, version: TransformResult, read_at: int | None = None, *, confirmed: bool = False
) -> Answer:
    """What the record says of one version, by default of one that is read now."""
    read_at = read_at or writer.now()
    return writer.record([version], read_at, confirmed=confirmed).answers[0]


def finish(writer: CacheWriter, version: TransformResult) -> None:
    """Record a version and mark it as done."""
    record = writer.record([version], writer.now(), confirmed=True)
    writer.mark_done([(version, record.at[0])])


def test_a_new_version_goes_on(writer: CacheWriter) -> None:
    """One of a document that is not known, and a newer one that claims the same."""
    assert answer(writer, result(1, A)) == GO
    assert answer(writer, result(1, A, ms=2_000)) == GO


def test_a_version_goes_on_until_it_is_done(writer: CacheWriter) -> None:
    """Recording is an intention: what was recorded and not written is met again."""
    version = result(1, A)
    assert [answer(writer, version) for _ in range(2)] == [GO, GO]
    finish(writer, version)
    assert [answer(writer, version) for _ in range(2)] == [DONE, DONE]
    assert answer(writer, result(1, A, ms=1_001)) == GO


def test_keys_that_are_not_claimed_any_more_are_given_up(writer: CacheWriter) -> None:
    """In the order in which they were claimed; what an eviction claims, and a queue, among them."""
    pushes = Enqueue("queue:ai_generation", "queue:ai_generation:alta", "item")
    answer(writer, result(1, A, B, Evict("config:api", "config:api:d"), pushes))
    given_up = f"config:api:a config:api:d {QUEUED}queue:ai_generation:alta"
    assert answer(writer, result(1, B, C, ms=2_000)) == given_up


def test_a_key_that_is_kept_is_not_given_up(writer: CacheWriter) -> None:
    """The document leaves it as it is."""
    answer(writer, result(1, A, B))
    assert answer(writer, result(1, Keep("config:api", "config:api:a"), ms=2_000)) == "config:api:b"
    assert answer(writer, result(1, ms=3_000)) == "config:api:a config:api:b"


def test_what_is_given_up_is_told_until_it_is_done(writer: CacheWriter) -> None:
    """A writer that dies before it leaves a key leaves that to the next one, also to one of a later version."""
    answer(writer, result(1, A))
    assert [answer(writer, result(1, B, ms=2_000)) for _ in range(2)] == ["config:api:a"] * 2
    assert answer(writer, result(1, C, ms=3_000)) == "config:api:b config:api:a"
    finish(writer, result(1, C, ms=3_000))
    assert answer(writer, result(1, ms=4_000)) == "config:api:c"


def test_the_same_version_may_claim_other_keys(writer: CacheWriter) -> None:
    """As it does after the settings or the program have changed: the old ones are given up."""
    finish(writer, result(1, A))
    assert answer(writer, result(1, B)) == "config:api:a"
    assert answer(writer, result(1, A)) == "config:api:b"


def test_a_read_before_the_record_was_written_is_stale(writer: CacheWriter) -> None:
    """Whatever its date: another writer has read the document later."""
    early = writer.now()
    answer(writer, result(1, A, ms=2_000))
    assert answer(writer, result(1, A, ms=3_000), early) == STALE
    assert answer(writer, result(1, A, ms=1_000), early, confirmed=True) == STALE
    assert answer(writer, gone(result(1).document), early, confirmed=True) == STALE
    assert answer(writer, result(1, A, ms=2_000), early) == GO, "it says the same"
    assert answer(writer, result(1, A, ms=3_000)) == GO


def test_a_read_at_the_moment_of_a_record_is_stale(writer: CacheWriter) -> None:
    """It may have been before it: a microsecond is long."""
    [at] = writer.record([result(1, A)], writer.now(), confirmed=False).at
    assert answer(writer, result(1, A, ms=2_000), int(at)) == STALE
    assert answer(writer, result(1, A, ms=2_000), int(at) + 1) == GO


def test_a_repetition_renews_the_moment(writer: CacheWriter) -> None:
    """What was read between a record and its repetition is not younger than the repetition."""
    answer(writer, result(1, A))
    between = writer.now()
    answer(writer, result(1, A))
    assert answer(writer, result(1, A, ms=2_000), between) == STALE


def test_an_older_version_goes_on_once_it_is_confirmed(writer: CacheWriter) -> None:
    """A page may come from a primary that was deposed; a date that was set back is real."""
    answer(writer, result(1, A, ms=2_000))
    assert answer(writer, result(1, A, ms=1_000)) == STALE
    assert answer(writer, result(1, A, ms=1_000), confirmed=True) == GO
    assert answer(writer, result(1, A, ms=2_000)) == GO, "what is recorded now is the older one"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (-5, -6, STALE),
        (-6, -5, GO),
        (-1, 1, GO),
        (2**53, 2**53 - 1, STALE),
        (99, 100, GO),
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
        ("<null", "1000", GO),
        ("1000", "<null", STALE),
        ("1000", ">timestamp", GO),
        (">timestamp", "1000", STALE),
        ("<null", ">timestamp", STALE),  # not compared, but read again
        (">timestamp", "<null", STALE),
    ],
)
def test_what_is_no_date_is_before_or_after_all_dates(
    writer: CacheWriter, first: str, second: str, expected: int
) -> None:
    """As in MongoDB's order of values."""
    answer(writer, result(1, A)._replace(timestamp=first, ms=None))
    assert answer(writer, result(1, A)._replace(timestamp=second, ms=None)) == expected


def test_a_document_that_is_gone_gives_up_all(writer: CacheWriter) -> None:
    """Until that is done; inserted again, whatever its date, it begins anew."""
    version = result(1, A, B, ms=5_000)
    finish(writer, version)
    assert answer(writer, gone(version.document), confirmed=True) == "config:api:a config:api:b"
    assert answer(writer, version) == STALE, "a page may be of before"
    assert answer(writer, result(1, A, ms=1_000), confirmed=True) == "config:api:b"


def test_a_record_that_was_written_since_is_not_marked_as_done(writer: CacheWriter) -> None:
    """Not even by the same version: the claims that are struck may be needed by the other writer."""
    version = result(1, A)
    answer(writer, result(1, B, ms=500))
    record = writer.record([version], writer.now(), confirmed=False)
    answer(writer, version)
    writer.mark_done([(version, record.at[0])])
    assert answer(writer, version) == "config:api:b"


def test_a_record_that_is_gone_is_not_marked_as_done(writer: CacheWriter, client: redis.Redis) -> None:
    """Redis was flushed, or has evicted it: the version goes on again."""
    version = result(1, A)
    record = writer.record([version], writer.now(), confirmed=False)
    client.flushdb()
    writer.mark_done([(version, record.at[0])])
    assert answer(writer, version) == GO


@pytest.mark.parametrize("moment", [-LATE - 1, ABOUT])
def test_a_read_that_is_too_old_or_of_the_future_is_stale(
    writer: CacheWriter, client: redis.Redis, moment: int
) -> None:
    """All of it, and nothing is recorded: the clock of Redis may have been set back."""
    record = writer.record([result(n, A) for n in range(60)], writer.now() + moment, confirmed=True)
    assert record.answers == [STALE] * 60
    assert client.dbsize() == 0


def test_a_read_within_the_deadline_is_young_enough(writer: CacheWriter) -> None:
    """Up to the deadline."""
    assert answer(writer, result(1, A), writer.now() - LATE + ABOUT) == GO


def test_a_record_of_the_future_refuses_nothing(writer: CacheWriter, client: redis.Redis) -> None:
    """The clock of Redis was set back since: what its moments say does not count."""
    version = result(1, A, ms=2_000)
    ahead = writer.now() + 3_600_000_000
    client.set(record_key(version.document), f"0{ahead} 2000 config:api:a ")
    assert answer(writer, result(1, A, ms=3_000)) == GO


def test_a_key_of_another_type_is_replaced(writer: CacheWriter, client: redis.Redis) -> None:
    """Another program has taken the name of a record; the documents beside it are recorded too."""
    taken = record_key(result(1).document)
    client.hset(taken, "a", "b")
    record = writer.record([result(1, A), result(2, A)], writer.now(), confirmed=False)
    assert record.answers == [GO, GO]
    assert client.type(taken) == "string"


def test_many_documents_keep_their_order(writer: CacheWriter) -> None:
    """However many calls they take."""
    versions = [result(n, A if n % 2 else B, ms=1_000 + n) for n in range(130)]
    finished = versions[::3]
    record = writer.record(finished, writer.now(), confirmed=False)
    writer.mark_done([*zip(finished, record.at, strict=True)])
    answers = writer.record(versions, writer.now(), confirmed=False).answers
    assert answers == [DONE if n % 3 == 0 else GO for n in range(130)]
    assert writer.record([], writer.now(), confirmed=False).answers == []


def test_locks_are_looked_at(writer: CacheWriter, client: redis.Redis) -> None:
    """Those of these documents that exist."""
    client.set("lock:b", "17")
    client.set("lock:c", "17")
    versions = [result(n, lock=lock) for n, lock in enumerate(["lock:a", "lock:b", "lock:b", None])]
    assert writer.record(versions, writer.now(), confirmed=False).held == {"lock:b"}
    assert writer.held(["lock:a", "lock:b", "lock:c"]) == {"lock:b", "lock:c"}
    assert writer.held([]) == frozenset()


def test_a_record_lives_longer_than_the_keys_of_its_document(
    writer: CacheWriter, client: redis.Redis
) -> None:
    """By what is remembered, and by twice the deadline; one that claims nothing lives that long."""
    rest = 1_440 + 2 * DEADLINE_SECONDS
    messages = Put("ai:campaign_messages", "ai:campaign_messages:a:b", ["1"])
    writer.record([result(1, A, messages), result(2, A), result(3)], writer.now(), confirmed=False)
    lives: list[Any] = [client.ttl(record_key(result(n).document)) for n in (1, 2, 3)]
    assert lives == pytest.approx([10_800 + rest, 3_600 + rest, rest], abs=5)


def test_what_is_done_is_remembered_as_long_as_before(writer: CacheWriter, client: redis.Redis) -> None:
    """Marking it changes no life; meeting it again renews it."""
    version, key = result(1, A), record_key(result(1).document)
    record = writer.record([version], writer.now(), confirmed=False)
    client.expire(key, 50)
    writer.mark_done([(version, record.at[0])])
    life: Any = client.ttl(key)
    assert 40 < life <= 50
    assert answer(writer, version) == DONE
    life = client.ttl(key)
    assert life > 3_600


def test_ids_are_told_apart_by_type(writer: CacheWriter) -> None:
    """An ObjectId and its hex are two documents."""
    name = "5f5f5f5f5f5f5f5f5f5f5f5f"
    finish(writer, result(ObjectId(name), A))
    assert answer(writer, result(name, A)) == GO
    assert answer(writer, result(ObjectId(name), A, source="other")) == GO
    assert answer(writer, result(ObjectId(name), A)) == DONE
