"""Reading keys and their registers as the scripts have written them."""

from typing import Any

import pytest
import redis

from etl.cache.client import Wire
from etl.cache.inspector import START, Content, Inspector, Shown
from etl.cache.keys import owner_key
from etl.cache.writer import CacheWriter, KeyWrite
from schemas.operations import Enqueue, Put
from tests.support.assembly import ImmediateRetry
from tests.support.results import result

KEY = "config:api:a"
PUT = Put("config:api", KEY, {"status": "said"})


@pytest.fixture
def inspector(wire: Wire) -> Inspector:
    """An inspector of the same Redis."""
    return Inspector(wire, ImmediateRetry())


@pytest.mark.parametrize(
    ("fill", "shown"),
    [
        (("HSET", "k", "a", "1"), Shown("k", "hash", None, {"a": "1"})),
        (("RPUSH", "k", "a", "b"), Shown("k", "list", None, ["a", "b"])),
        (("SET", "k", "a"), Shown("k", "string", None, "a")),
        (("SADD", "k", "a"), Shown("k", "set", None, ["a"])),
        (("ZADD", "k", 1, "a"), Shown("k", "zset", None, ["a"])),
    ],
)
def test_key_of_each_type_is_shown(
    wire: Wire, inspector: Inspector, fill: tuple[Any, ...], shown: Shown
) -> None:
    """With its TTL; an absent key is no error."""
    assert inspector.show("k") is None
    wire.exchange([fill])
    assert inspector.show("k") == shown
    wire.exchange([("PEXPIRE", "k", 60_000)])
    again = inspector.show("k")
    assert again is not None
    assert again.ttl_ms is not None
    assert 50_000 < again.ttl_ms <= 60_000


def test_claims_are_those_that_were_applied(inspector: Inspector, writer: CacheWriter) -> None:
    """Without documents that have left the key."""
    older, newer = result("older", ms=1_000), result("newer", ms=2_000)
    changes = [KeyWrite(one.document, f"{one.timestamp} {one.document}", PUT) for one in (older, newer)]
    writer.apply({KEY: changes}, [], writer.now(), 100)
    assert {(claim.document, claim.timestamp) for claim in inspector.claims([KEY])[KEY]} == {
        (older.document, "1000"),
        (newer.document, "2000"),
    }
    left = changes[0]._replace(write=None)
    writer.apply({KEY: [left]}, [], writer.now(), 100)
    [claim] = inspector.claims([KEY])[KEY]
    assert (claim.document, claim.position) == (newer.document, newer.position)
    cursor, owned = inspector.owned(START)
    while cursor != START:  # a cluster is scanned node by node
        cursor, found = inspector.owned(cursor)
        owned += found
    assert owned == [KEY]


def test_claim_written_again_differs(inspector: Inspector, writer: CacheWriter) -> None:
    """So a recheck notices that the key was written meanwhile."""
    one = result("one")
    change = KeyWrite(one.document, f"{one.timestamp} {one.document}", PUT)
    writer.apply({KEY: [change]}, [], writer.now(), 100)
    before = inspector.claims([KEY])
    assert inspector.claims([KEY]) == before
    writer.apply({KEY: [change]}, [], writer.now(), 100)
    assert inspector.claims([KEY]) != before


def test_registers_of_other_programs_are_ignored(client: redis.Redis, inspector: Inspector) -> None:
    client.hset(owner_key("a"), "name", "x")
    client.set(owner_key("b"), "+1 2")
    client.set(owner_key("c"), "anything\nat all")
    assert inspector.claims(["a", "b", "c", "d"]) == {"a": (), "b": (), "c": (), "d": ()}


def test_record_has_version_and_done_mark(inspector: Inspector, writer: CacheWriter) -> None:
    """And the contract keys that the document claims, without queues."""
    one = result("one", PUT, Enqueue("queue:ai_generation", "queue:ai_generation:alta", "{}"))
    recorded = writer.record([one], writer.now(), confirmed=False)
    assert inspector.records(["c none", one.document]) == {one.document: (one.timestamp, False, (KEY,))}
    writer.mark_done([(one, recorded.at[0])])
    assert inspector.records([one.document])[one.document].done


def test_contents_are_read_with_their_size(client: redis.Redis, inspector: Inspector) -> None:
    """A hash that is far too large is not read."""
    client.hset("h", mapping={"a": "1"})
    client.rpush("l", "x", "y")
    client.hset("large", mapping={str(n): n for n in range(100)})
    client.set("s", "text")
    assert inspector.contents(dict.fromkeys(["h", "l", "large", "s", "none"], 1)) == {
        "h": Content("hash", None, 1, {"a": "1"}),
        "l": Content("list", None, 2, ["x", "y"]),
        "large": Content("hash", None, 100),
        "s": Content("string", None),
    }
    assert inspector.contents({}) == {}
