"""Which claim decides the content of a contract key."""

from collections.abc import Sequence
from typing import Any

import pytest
import redis
from bson import ObjectId

from etl.cache.writer import CacheWriter, KeyWrite, WriteConflict
from schemas.families import CONFIG_API
from schemas.operations import Put
from tests.support.batches import KEY, LATE, status, status_put
from tests.support.claims import ABOUT, IDS, NOTHING, OWNER, apply, blocked, change, claim, leave, line, name
from tests.support.results import result


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1), (0, 2, 1), (1, 0, 2)])
def test_newest_claim_wins_in_any_order(
    writer: CacheWriter, client: redis.Redis, order: Sequence[int]
) -> None:
    """A losing claim is recorded once it is known to lose."""
    newest = -1
    for number in order:
        one = claim(IDS[number], 1_000 + number)
        if number > newest:
            assert apply(writer, one) == NOTHING
            newest = number
        else:
            assert apply(writer, one) == blocked(IDS[newest], holds=True)
            assert apply(writer, one._replace(loses=True)) == NOTHING
        assert status(client) == f"{IDS[newest]} {1_000 + newest}"
    lines: Any = client.get(OWNER)
    assert lines.count("+") == 3


def test_greatest_object_id_decides_at_one_date(writer: CacheWriter, client: redis.Redis) -> None:
    low, middle, high = ObjectId("0" * 23 + "9"), ObjectId("0" * 23 + "a"), ObjectId("a" + "0" * 23)
    apply(writer, claim(middle))
    assert apply(writer, claim(low)) == blocked(middle, holds=True)
    assert apply(writer, claim(high)) == NOTHING
    assert apply(writer, claim(middle)) == blocked(high, holds=True)
    assert status(client) == f"{high} 1000"
    highest = ObjectId("a" + "0" * 22 + "1")
    assert apply(writer, claim(highest)) == NOTHING
    assert status(client) == f"{highest} 1000"


@pytest.mark.parametrize("other", [7, "7", 7.5, {"a": 1}, ObjectId("f" * 24)], ids=repr)
def test_ids_of_other_types_are_compared_by_the_caller(
    writer: CacheWriter, client: redis.Redis, other: Any
) -> None:
    """At one date the script returns the document that it cannot compare, or uses the order of the call."""
    held, asked = ("x", other) if isinstance(other, ObjectId) else (other, "x")
    apply(writer, claim(held))
    assert apply(writer, claim(asked)) == blocked(held, holds=True)
    assert apply(writer, claim(held), claim(asked)) == NOTHING
    assert status(client) == f"{asked} 1000"
    assert apply(writer, claim(asked), claim(held)) == NOTHING
    assert status(client) == f"{held} 1000"


def test_documents_that_cannot_be_compared_may_all_leave(writer: CacheWriter, client: redis.Redis) -> None:
    apply(writer, claim(7), claim("x"))
    assert apply(writer, leave(7, 2_000), leave("x", 2_000)) == NOTHING
    assert not client.exists(KEY)


def test_documents_of_two_collections_are_compared_by_the_caller(
    writer: CacheWriter, client: redis.Redis
) -> None:
    ours, theirs = result(IDS[1], source="a"), result(IDS[2], source="b")
    one, other = (KeyWrite(v.document, line(v), status_put(v.document)) for v in (ours, theirs))
    apply(writer, one)
    assert apply(writer, other) == NOTHING._replace(conflicts=[WriteConflict(KEY, ours.document, holds=True)])
    assert apply(writer, one, other) == NOTHING
    assert status(client) == theirs.document


@pytest.mark.parametrize(
    ("older", "newer"),
    [("-6", "-5"), ("-1", "1"), ("99", "100"), ("<null", "-5"), ("5", ">timestamp"), ("<null", ">timestamp")],
)
def test_other_values_sort_before_or_after_dates(
    writer: CacheWriter, client: redis.Redis, older: str, newer: str
) -> None:
    """As in MongoDB."""
    first, second = (KeyWrite(name(n), f"{t} {name(n)}", status_put(t)) for n, t in [(1, older), (2, newer)])
    apply(writer, second)
    assert apply(writer, first) == blocked(2, holds=True)
    client.flushdb()
    apply(writer, first)
    assert apply(writer, second) == NOTHING
    assert status(client) == newer


def test_later_read_of_the_holder_is_written(writer: CacheWriter, client: redis.Redis) -> None:
    """Its date may be earlier: dates can be set back."""
    for ms in (1_000, 3_000, 2_000):
        assert apply(writer, claim(1, ms)) == NOTHING
        assert status(client) == f"1 {ms}"


def test_older_read_of_a_document_is_refused(writer: CacheWriter, client: redis.Redis) -> None:
    """Unless it repeats the recorded claim."""
    early = writer.now()
    apply(writer, claim(1, 2_000))
    for late in (claim(1, 1_000), claim(1, 3_000), leave(1, 3_000)):
        assert apply(writer, late, read_at=early) == blocked()
    assert apply(writer, claim(1, 2_000), read_at=early) == NOTHING
    assert status(client) == "1 2000"


def test_read_in_the_microsecond_of_a_write_is_refused(writer: CacheWriter, client: redis.Redis) -> None:
    """It may have happened before the write."""
    apply(writer, claim(1, 2_000))
    written: Any = client.get(OWNER)
    assert apply(writer, claim(1, 3_000), read_at=int(written[1:].partition(" ")[0])) == blocked()
    assert apply(writer, claim(1, 3_000), read_at=int(written[1:].partition(" ")[0]) + 1) == NOTHING


def test_refused_change_refuses_all_changes_of_its_key(writer: CacheWriter, client: redis.Redis) -> None:
    """Other keys of the call are written."""
    early = writer.now()
    apply(writer, claim(1, 2_000))
    other = change(3, Put(CONFIG_API.name, "config:api:b", {"status": "b"}))
    reply = writer.apply({KEY: [claim(1, 1_500), claim(2, 3_000)], "config:api:b": [other]}, [], early, 100)
    assert reply == blocked()
    assert status(client) == "1 2000"
    assert client.hgetall("config:api:b") == {"status": "b"}


def test_older_read_does_not_restore_a_released_claim(writer: CacheWriter, client: redis.Redis) -> None:
    """A later read does."""
    apply(writer, claim(1))
    early = writer.now()
    assert apply(writer, leave(1, 2_000)) == NOTHING
    assert not client.exists(KEY)
    assert apply(writer, claim(1), read_at=early) == blocked()
    assert not client.exists(KEY)
    assert apply(writer, claim(1, 3_000)) == NOTHING
    assert status(client) == "1 3000"


def test_release_is_recorded_before_its_claim_arrives(writer: CacheWriter, client: redis.Redis) -> None:
    """The write of an older version may still be in progress."""
    early = writer.now()
    assert apply(writer, leave(1, 2_000)) == NOTHING
    assert apply(writer, claim(1), read_at=early) == blocked()
    assert not client.exists(KEY)


def test_release_does_not_remove_a_key_without_register(writer: CacheWriter, client: redis.Redis) -> None:
    """The content may be from another document."""
    client.hset(KEY, "status", "unknown")
    assert apply(writer, leave(1, 2_000)) == NOTHING
    assert status(client) == "unknown"


def test_repeated_release_refuses_reads_before_it(writer: CacheWriter, client: redis.Redis) -> None:
    apply(writer, claim(1))
    apply(writer, leave(1, 2_000))
    between = writer.now()
    apply(writer, leave(1, 2_000))
    assert apply(writer, claim(1), read_at=between) == blocked()
    assert not client.exists(KEY)


def test_release_may_be_sent_twice(writer: CacheWriter) -> None:
    apply(writer, claim(1))
    read_at = writer.now()
    for _ in range(2):
        assert apply(writer, leave(1, 2_000), read_at=read_at) == NOTHING


def test_release_is_deleted_after_the_deadline(writer: CacheWriter, client: redis.Redis) -> None:
    now = writer.now()
    client.set(OWNER, f"-{now - LATE - ABOUT} 1000 {name(1)}\n-{now - LATE + ABOUT} 1000 {name(2)}")
    apply(writer, claim(3))
    lines: Any = client.get(OWNER)
    kept = {line.partition(" ")[2] for line in lines.splitlines()}
    assert kept == {f"1000 {name(2)}", f"1000 {name(3)}"}


def test_repeated_claim_refuses_a_release_read_before_it(writer: CacheWriter, client: redis.Redis) -> None:
    apply(writer, claim(1))
    between = writer.now()
    apply(writer, claim(1))
    assert apply(writer, leave(1, 2_000), read_at=between) == blocked()
    assert client.exists(KEY)


def test_holder_leaves_only_with_the_next_content_in_the_call(
    writer: CacheWriter, client: redis.Redis
) -> None:
    """So no reader sees the key absent."""
    apply(writer, claim(1, 1_000))
    apply(writer, claim(1, 1_000), claim(2, 2_000), claim(3, 3_000))
    before: Any = client.get(OWNER)
    assert apply(writer, leave(3, 4_000)) == blocked(2)
    assert client.get(OWNER) == before
    assert status(client) == "3 3000"
    assert apply(writer, claim(2, 2_000), leave(3, 4_000)) == NOTHING
    assert status(client) == "2 2000"
    assert apply(writer, claim(1, 1_000), leave(2, 5_000)) == NOTHING
    assert status(client) == "1 1000"


def test_claim_below_the_holder_may_leave(writer: CacheWriter, client: redis.Redis) -> None:
    """The content and its TTL stay unchanged."""
    apply(writer, claim(1), claim(2, 2_000))
    client.expire(KEY, 77)
    assert apply(writer, leave(1, 3_000)) == NOTHING
    assert status(client) == "2 2000"
    assert client.ttl(KEY) in {76, 77}
    assert apply(writer, leave(2, 3_000)) == NOTHING, "no other claim is left"
    assert not client.exists(KEY)


def test_holder_dated_back_below_another_claim_loses_the_key(
    writer: CacheWriter, client: redis.Redis
) -> None:
    apply(writer, claim(1, 1_000), claim(2, 9_000))
    assert apply(writer, claim(2, 500)) == blocked(1)
    assert apply(writer, claim(2, 500), claim(1, 1_000)) == NOTHING
    assert status(client) == "1 1000"


def test_claim_below_the_holder_is_recorded_if_it_is_known_to_lose(
    writer: CacheWriter, client: redis.Redis
) -> None:
    """Otherwise the holder must be read first."""
    apply(writer, claim(2, 2_000))
    assert apply(writer, claim(1, 1_000)) == blocked(2, holds=True)
    assert apply(writer, leave(2, 3_000)) == NOTHING, "the other claim was not recorded"
    apply(writer, claim(2, 2_000))
    assert apply(writer, claim(1, 1_000)._replace(loses=True)) == NOTHING
    assert status(client) == "2 2000"
    assert apply(writer, leave(2, 3_000)) == blocked(1)


def test_losing_claim_that_wins_now_is_read_again(writer: CacheWriter, client: redis.Redis) -> None:
    """The holder has left, or the register has expired: the content of the claim is required."""
    other = change(3, Put(CONFIG_API.name, "config:api:b", {"status": "b"}))
    losing = claim(1)._replace(loses=True)
    for _ in range(2):
        reply = writer.apply({KEY: [losing], "config:api:b": [other]}, [], writer.now(), 100)
        assert reply == blocked(1)
        assert not client.exists(KEY)
        assert client.hgetall("config:api:b") == {"status": "b"}
        client.flushdb()
        apply(writer, claim(2))
        apply(writer, leave(2, 2_000))


def test_eight_newest_claims_are_kept(writer: CacheWriter, client: redis.Redis) -> None:
    """After all of them have left, the reply says that there were more."""
    for number in range(12):
        assert apply(writer, claim(IDS[number], number)) == NOTHING
    for number in range(11, 4, -1):
        reply = apply(writer, claim(IDS[number - 1], number - 1), leave(IDS[number], 100))
        assert reply == NOTHING, number
    assert status(client) == f"{IDS[4]} 4"
    assert apply(writer, leave(IDS[4], 100)) == NOTHING._replace(incomplete=[KEY])
    assert not client.exists(KEY)
    assert apply(writer, leave(IDS[5], 101)) == NOTHING, "that was reported already"


def test_claim_older_than_a_dropped_one_is_reported_as_incomplete(
    writer: CacheWriter, client: redis.Redis
) -> None:
    """The dropped claim may be the next one."""
    apply(writer, *[claim(IDS[number], number) for number in range(1, 12)])
    leaves = [leave(IDS[number], 100) for number in range(4, 11)]
    assert apply(writer, *leaves) == NOTHING
    newer, older = claim(IDS[15], 8), claim(IDS[0], 0)
    assert apply(writer, newer, leave(IDS[11], 100)) == NOTHING
    assert apply(writer, older, leave(IDS[15], 100)) == NOTHING._replace(incomplete=[KEY])
    assert status(client) == f"{IDS[0]} 0"


def test_call_with_too_many_claims_omits_the_oldest(writer: CacheWriter, client: redis.Redis) -> None:
    claims = [claim(IDS[number], number) for number in range(12)]
    assert apply(writer, *claims) == NOTHING
    assert status(client) == f"{IDS[11]} 11"
    leaves = [leave(IDS[number], 100) for number in range(4, 12)]
    assert apply(writer, *leaves) == NOTHING._replace(incomplete=[KEY])
    assert not client.exists(KEY)


def test_releases_are_never_omitted(writer: CacheWriter, client: redis.Redis) -> None:
    apply(writer, claim(20, 50))
    claims = [claim(IDS[number], number) for number in range(12)]
    assert apply(writer, leave(20, 60), *claims) == NOTHING
    assert status(client) == f"{IDS[11]} 11"


@pytest.mark.parametrize("moment", [-LATE - 1, ABOUT])
def test_read_that_is_too_old_or_in_the_future_changes_nothing(
    writer: CacheWriter, client: redis.Redis, moment: int
) -> None:
    """A read in the future means that the clock of Redis was set back."""
    keys = [f"config:api:{number}" for number in range(70)]
    changes = {key: [change(1, Put(CONFIG_API.name, key, {"status": "a"}))] for key in keys}
    reply = writer.apply(changes, [], writer.now() + moment, 100)
    assert reply == NOTHING._replace(conflicts=[WriteConflict(key, "", holds=False) for key in keys])
    assert client.dbsize() == 0


def test_register_entry_in_the_future_refuses_nothing(writer: CacheWriter, client: redis.Redis) -> None:
    """The clock of Redis has been set back since it was written."""
    ahead = writer.now() + 3_600_000_000
    client.set(OWNER, f"+{ahead} 2000 {name(1)}\n-{ahead} 2000 {name(2)}")
    assert apply(writer, claim(1, 3_000), claim(2, 4_000)) == NOTHING
    assert status(client) == "2 4000"
