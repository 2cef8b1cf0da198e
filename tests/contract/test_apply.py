"""Contract keys as the newest documents that claim them say, over a fake Redis and a real one."""

from collections.abc import Sequence
from typing import Any

import pytest
import redis
from bson import ObjectId

from etl.cache.writer import CacheWriter, KeyWrite, WriteConflict
from schemas.families import CONFIG_API
from schemas.operations import Put
from tests.support.claims import (
    ABOUT,
    IDS,
    KEY,
    LATE,
    NOTHING,
    OWNER,
    apply,
    blocked,
    change,
    claim,
    leave,
    line,
    name,
    says,
    status,
)
from tests.support.results import result


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1), (0, 2, 1), (1, 0, 2)])
def test_the_newest_claim_is_written(writer: CacheWriter, client: redis.Redis, order: Sequence[int]) -> None:
    """In whatever order claims come, with the holder in the call where it decides."""
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


def test_of_one_date_the_greatest_id_decides(writer: CacheWriter, client: redis.Redis) -> None:
    """ObjectIds are compared as MongoDB does, wherever they differ."""
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
    """Of one date: the script asks for the document that it cannot place, and takes the order of the call."""
    held, asked = ("x", other) if isinstance(other, ObjectId) else (other, "x")
    apply(writer, claim(held))
    assert apply(writer, claim(asked)) == blocked(held, holds=True)
    assert apply(writer, claim(held), claim(asked)) == NOTHING
    assert status(client) == f"{asked} 1000"
    assert apply(writer, claim(asked), claim(held)) == NOTHING
    assert status(client) == f"{held} 1000"


def test_all_may_leave_whatever_their_order(writer: CacheWriter, client: redis.Redis) -> None:
    """Of one date and of types that the script cannot compare: the key goes."""
    apply(writer, claim(7), claim("x"))
    assert apply(writer, leave(7, 2_000), leave("x", 2_000)) == NOTHING
    assert not client.exists(KEY)


def test_documents_of_two_collections_are_compared_by_the_caller(
    writer: CacheWriter, client: redis.Redis
) -> None:
    """Where their dates are the same."""
    ours, theirs = result(IDS[1], source="a"), result(IDS[2], source="b")
    one, other = (KeyWrite(v.document, line(v), says(v.document)) for v in (ours, theirs))
    apply(writer, one)
    assert apply(writer, other) == NOTHING._replace(conflicts=[WriteConflict(KEY, ours.document, holds=True)])
    assert apply(writer, one, other) == NOTHING
    assert status(client) == theirs.document


@pytest.mark.parametrize(
    ("older", "newer"),
    [("-6", "-5"), ("-1", "1"), ("99", "100"), ("<null", "-5"), ("5", ">timestamp"), ("<null", ">timestamp")],
)
def test_dates_are_numbers_and_what_is_no_date_is_before_or_after(
    writer: CacheWriter, client: redis.Redis, older: str, newer: str
) -> None:
    """As MongoDB orders values."""
    first, second = (KeyWrite(name(n), f"{t} {name(n)}", says(t)) for n, t in [(1, older), (2, newer)])
    apply(writer, second)
    assert apply(writer, first) == blocked(2, holds=True)
    client.flushdb()
    apply(writer, first)
    assert apply(writer, second) == NOTHING
    assert status(client) == newer


def test_a_document_that_moves_on_takes_its_claim_along(writer: CacheWriter, client: redis.Redis) -> None:
    """Its newer version is written, an older one too where it is read later: dates may go back."""
    for ms in (1_000, 3_000, 2_000):
        assert apply(writer, claim(1, ms)) == NOTHING
        assert status(client) == f"1 {ms}"


def test_an_older_read_of_a_document_is_refused(writer: CacheWriter, client: redis.Redis) -> None:
    """Whatever it says, but for a repetition of what is there."""
    early = writer.now()
    apply(writer, claim(1, 2_000))
    for late in (claim(1, 1_000), claim(1, 3_000), leave(1, 3_000)):
        assert apply(writer, late, read_at=early) == blocked()
    assert apply(writer, claim(1, 2_000), read_at=early) == NOTHING
    assert status(client) == "1 2000"


def test_a_read_at_the_moment_of_a_write_is_refused(writer: CacheWriter, client: redis.Redis) -> None:
    """It may have been before it: a microsecond is long."""
    apply(writer, claim(1, 2_000))
    written: Any = client.get(OWNER)
    assert apply(writer, claim(1, 3_000), read_at=int(written[1:].partition(" ")[0])) == blocked()
    assert apply(writer, claim(1, 3_000), read_at=int(written[1:].partition(" ")[0]) + 1) == NOTHING


def test_one_refused_change_refuses_all_of_the_key(writer: CacheWriter, client: redis.Redis) -> None:
    """Its documents are read again together; other keys of the call are written."""
    early = writer.now()
    apply(writer, claim(1, 2_000))
    other = change(3, Put(CONFIG_API.name, "config:api:b", {"status": "b"}))
    reply = writer.apply({KEY: [claim(1, 1_500), claim(2, 3_000)], "config:api:b": [other]}, [], early, 100)
    assert reply == blocked()
    assert status(client) == "1 2000"
    assert client.hgetall("config:api:b") == {"status": "b"}


def test_a_document_that_has_left_cannot_come_back_by_an_older_read(
    writer: CacheWriter, client: redis.Redis
) -> None:
    """A slow writer that has read it before: the key stays away; a younger read brings it back."""
    apply(writer, claim(1))
    early = writer.now()
    assert apply(writer, leave(1, 2_000)) == NOTHING
    assert not client.exists(KEY)
    assert apply(writer, claim(1), read_at=early) == blocked()
    assert not client.exists(KEY)
    assert apply(writer, claim(1, 3_000)) == NOTHING
    assert status(client) == "1 3000"


def test_a_document_that_leaves_a_key_it_never_had_is_noted(writer: CacheWriter, client: redis.Redis) -> None:
    """The write of an older version may still be under way."""
    early = writer.now()
    assert apply(writer, leave(1, 2_000)) == NOTHING
    assert apply(writer, claim(1), read_at=early) == blocked()
    assert not client.exists(KEY)


def test_a_key_of_which_nothing_is_known_is_not_removed(writer: CacheWriter, client: redis.Redis) -> None:
    """Where its register is lost: what it holds may be of another document."""
    client.hset(KEY, "status", "unknown")
    assert apply(writer, leave(1, 2_000)) == NOTHING
    assert status(client) == "unknown"


def test_a_repeated_leave_renews_its_moment(writer: CacheWriter, client: redis.Redis) -> None:
    """What was read in between is refused."""
    apply(writer, claim(1))
    apply(writer, leave(1, 2_000))
    between = writer.now()
    apply(writer, leave(1, 2_000))
    assert apply(writer, claim(1), read_at=between) == blocked()
    assert not client.exists(KEY)


def test_a_leave_whose_answer_was_lost_may_be_sent_again(writer: CacheWriter) -> None:
    """It says the same."""
    apply(writer, claim(1))
    read_at = writer.now()
    for _ in range(2):
        assert apply(writer, leave(1, 2_000), read_at=read_at) == NOTHING


def test_who_has_left_is_forgotten_after_the_deadline(writer: CacheWriter, client: redis.Redis) -> None:
    """No read as old as that is written any more; a line that is younger stays."""
    now = writer.now()
    client.set(OWNER, f"-{now - LATE - ABOUT} 1000 {name(1)}\n-{now - LATE + ABOUT} 1000 {name(2)}")
    apply(writer, claim(3))
    lines: Any = client.get(OWNER)
    kept = {line.partition(" ")[2] for line in lines.splitlines()}
    assert kept == {f"1000 {name(2)}", f"1000 {name(3)}"}


def test_a_repeated_claim_renews_its_moment(writer: CacheWriter, client: redis.Redis) -> None:
    """A leave that was read between two claims is refused."""
    apply(writer, claim(1))
    between = writer.now()
    apply(writer, claim(1))
    assert apply(writer, leave(1, 2_000), read_at=between) == blocked()
    assert client.exists(KEY)


def test_the_heir_is_asked_for_before_the_holder_leaves(writer: CacheWriter, client: redis.Redis) -> None:
    """Nothing changes before its content is there, so no reader finds a gap."""
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


def test_one_that_does_not_hold_the_key_may_leave_it(writer: CacheWriter, client: redis.Redis) -> None:
    """Nothing is asked for, and the data is not touched: not even its life."""
    apply(writer, claim(1), claim(2, 2_000))
    client.expire(KEY, 77)
    assert apply(writer, leave(1, 3_000)) == NOTHING
    assert status(client) == "2 2000"
    assert client.ttl(KEY) in {76, 77}
    assert apply(writer, leave(2, 3_000)) == NOTHING, "there is no heir any more"
    assert not client.exists(KEY)


def test_a_holder_that_goes_back_below_another_makes_room(writer: CacheWriter, client: redis.Redis) -> None:
    """Its date was set back: the one below it has to be read, and is written."""
    apply(writer, claim(1, 1_000), claim(2, 9_000))
    assert apply(writer, claim(2, 500)) == blocked(1)
    assert apply(writer, claim(2, 500), claim(1, 1_000)) == NOTHING
    assert status(client) == "1 1000"


def test_a_claim_below_the_holder_changes_nothing_unless_it_is_known_to_lose(
    writer: CacheWriter, client: redis.Redis
) -> None:
    """Its holder is read again first; where that cannot be had, the claim is noted below it and inherits later."""
    apply(writer, claim(2, 2_000))
    assert apply(writer, claim(1, 1_000)) == blocked(2, holds=True)
    assert apply(writer, leave(2, 3_000)) == NOTHING, "the other was not noted"
    apply(writer, claim(2, 2_000))
    assert apply(writer, claim(1, 1_000)._replace(loses=True)) == NOTHING
    assert status(client) == "2 2000"
    assert apply(writer, leave(2, 3_000)) == blocked(1)


def test_a_claim_that_was_to_lose_and_wins_by_now_is_read_again(
    writer: CacheWriter, client: redis.Redis
) -> None:
    """The one that it was to lose against has left, or its register has expired: its content is needed."""
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


def test_only_the_newest_claims_are_kept(writer: CacheWriter, client: redis.Redis) -> None:
    """Eight of them; once they are all gone it is told that there were more."""
    for number in range(12):
        assert apply(writer, claim(IDS[number], number)) == NOTHING
    for number in range(11, 4, -1):
        reply = apply(writer, claim(IDS[number - 1], number - 1), leave(IDS[number], 100))
        assert reply == NOTHING, number
    assert status(client) == f"{IDS[4]} 4"
    assert apply(writer, leave(IDS[4], 100)) == NOTHING._replace(incomplete=[KEY])
    assert not client.exists(KEY)
    assert apply(writer, leave(IDS[5], 101)) == NOTHING, "that was told already"


def test_an_heir_that_is_older_than_a_claim_that_was_dropped(
    writer: CacheWriter, client: redis.Redis
) -> None:
    """It is told, as the one that was dropped may be the heir; a newer one is the heir for certain."""
    apply(writer, *[claim(IDS[number], number) for number in range(1, 12)])
    leaves = [leave(IDS[number], 100) for number in range(4, 11)]
    assert apply(writer, *leaves) == NOTHING
    newer, older = claim(IDS[15], 8), claim(IDS[0], 0)
    assert apply(writer, newer, leave(IDS[11], 100)) == NOTHING
    assert apply(writer, older, leave(IDS[15], 100)) == NOTHING._replace(incomplete=[KEY])
    assert status(client) == f"{IDS[0]} 0"


def test_more_claims_at_once_than_are_kept(writer: CacheWriter, client: redis.Redis) -> None:
    """The oldest are left out of the call, and it is told once the others are gone."""
    claims = [claim(IDS[number], number) for number in range(12)]
    assert apply(writer, *claims) == NOTHING
    assert status(client) == f"{IDS[11]} 11"
    leaves = [leave(IDS[number], 100) for number in range(4, 12)]
    assert apply(writer, *leaves) == NOTHING._replace(incomplete=[KEY])
    assert not client.exists(KEY)


def test_leaves_are_never_left_out(writer: CacheWriter, client: redis.Redis) -> None:
    """However many claims are in the call beside them."""
    apply(writer, claim(20, 50))
    claims = [claim(IDS[number], number) for number in range(12)]
    assert apply(writer, leave(20, 60), *claims) == NOTHING
    assert status(client) == f"{IDS[11]} 11"


@pytest.mark.parametrize("moment", [-LATE - 1, ABOUT])
def test_a_read_that_is_too_old_or_of_the_future_changes_nothing(
    writer: CacheWriter, client: redis.Redis, moment: int
) -> None:
    """All keys of the call are to be read again: the clock of Redis may have been set back."""
    keys = [f"config:api:{number}" for number in range(70)]
    changes = {key: [change(1, Put(CONFIG_API.name, key, {"status": "a"}))] for key in keys}
    reply = writer.apply(changes, [], writer.now() + moment, 100)
    assert reply == NOTHING._replace(conflicts=[WriteConflict(key, "", holds=False) for key in keys])
    assert client.dbsize() == 0


def test_a_line_of_the_future_refuses_nothing(writer: CacheWriter, client: redis.Redis) -> None:
    """The clock of Redis was set back since it was written."""
    ahead = writer.now() + 3_600_000_000
    client.set(OWNER, f"+{ahead} 2000 {name(1)}\n-{ahead} 2000 {name(2)}")
    assert apply(writer, claim(1, 3_000), claim(2, 4_000)) == NOTHING
    assert status(client) == "2 4000"
