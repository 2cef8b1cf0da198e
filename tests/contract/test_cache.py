"""Stage 3, over a fake Redis and a real one: whole keys, fenced writes, each request queued once."""

from collections.abc import Sequence
from typing import Any

import pytest
import redis
from bson import ObjectId
from bson.datetime_ms import DatetimeMS

from etl.cache.cache import Cache
from etl.cache.client import Wire
from etl.cache.keys import companions
from etl.cache.keyspace import Keyspace, Shown
from etl.errors import LeaseLost, Overtaken, Transient
from etl.model.outcome import Outcome
from etl.sync.batch import Decision, Request
from schemas.families import CAMPAIGN_MESSAGES, CONFIG_API, GENERATION_QUEUE
from schemas.operations import Enqueue, Evict, Put
from schemas.position import Position
from tests.support.outcomes import applied, fill
from tests.support.twins import NAME, take_lease

OWN = companions(NAME)
KEY = "config:api:a"
QUEUE = "queue:ai_generation:alta"
NOBODY: frozenset[str] = frozenset()


def outcome(number: int, *entries: Put | Evict | Enqueue, ms: int = 1000, lock: str | None = None) -> Outcome:
    """A document that asks for these entries."""
    return applied(Position(DatetimeMS(ms), number), *entries, lock=lock)


def request(number: int, ms: int = 1000, queue: str = QUEUE) -> tuple[Outcome, Request]:
    """A document that asks for messages, and its request."""
    asking = outcome(number, Enqueue(GENERATION_QUEUE.name, queue, f"item {number}"), ms=ms)
    return asking, Request(queue, f"item {number}", asking)


def asked(*pairs: tuple[Outcome, Request]) -> Decision:
    """The decision to queue these requests."""
    return Decision(applied=[o for o, _ in pairs], requests=[r for _, r in pairs])


def put(value: Any, family: str = CONFIG_API.name) -> Decision:
    """The decision to fill the key."""
    return Decision(writes={KEY: fill(Put(family, KEY, value))})


def write(
    wire: Wire, client: redis.Redis, decision: Decision, queues: frozenset[str] = NOBODY
) -> tuple[int, Sequence[Any]]:
    """Look and write, as the holder of a lease of its own."""
    cache = Cache(wire, NAME, OWN)
    cache.look([], take_lease(client), None, has_claims=False)
    written = cache.write(decision, queues)
    return written.pushed, written.refused


def test_a_hash_is_replaced_as_a_whole(wire: Wire, client: redis.Redis) -> None:
    """Fields that the new value has not are gone, and it lives as long as its family says."""
    write(wire, client, put({"status": "a", "rate_limit": "5"}))
    client.expire(KEY, 5)
    write(wire, client, put({"status": "b"}))
    assert client.hgetall(KEY) == {"status": "b"}
    assert 3590 < client.ttl(KEY) <= 3600


def test_a_list_is_replaced_as_a_whole(wire: Wire, client: redis.Redis) -> None:
    """It is as long as the new value, in its order."""
    write(wire, client, put(["1", "2", "3"], CAMPAIGN_MESSAGES.name))
    write(wire, client, put(["4", "5"], CAMPAIGN_MESSAGES.name))
    assert client.lrange(KEY, 0, -1) == ["4", "5"]
    assert 10790 < client.ttl(KEY) <= 10800


@pytest.mark.parametrize("before", [{"x": "1"}, ["1"], None])
def test_the_type_of_a_key_may_change(wire: Wire, client: redis.Redis, before: Any) -> None:
    """Whatever was there, a string included, gives way."""
    if before is None:
        client.set(KEY, "a string")
    else:
        write(wire, client, put(before))
    write(wire, client, put(["1"]))
    assert client.lrange(KEY, 0, -1) == ["1"]
    write(wire, client, put({"status": "a"}))
    assert client.hgetall(KEY) == {"status": "a"}


def test_a_family_without_a_life_stays(wire: Wire, client: redis.Redis) -> None:
    """Its keys get no TTL, and lose the one they had."""
    client.set(KEY, "x", ex=5)
    write(wire, client, put({"status": "a"}, GENERATION_QUEUE.name))
    assert client.ttl(KEY) == -1


def test_eviction(wire: Wire, client: redis.Redis) -> None:
    """The key is gone, also when it never was."""
    write(wire, client, put({"status": "a"}))
    for _ in range(2):
        write(wire, client, Decision(writes={KEY: fill(Evict(CONFIG_API.name, KEY))}))
        assert not client.exists(KEY)


def test_a_stale_token_is_refused_at_the_look(wire: Wire, client: redis.Redis) -> None:
    """Who has lost the lease learns it before it writes."""
    old = take_lease(client)
    take_lease(client)
    with pytest.raises(LeaseLost):
        Cache(wire, NAME, OWN).look([], old, None, has_claims=False)


def test_a_lease_lost_after_the_look_stops_the_write(wire: Wire, client: redis.Redis) -> None:
    """Nothing of the batch is carried out, its requests neither."""
    cache = Cache(wire, NAME, OWN)
    cache.look([], take_lease(client), None, has_claims=False)
    take_lease(client)
    decision = asked(request(1))
    decision.writes = put({"status": "a"}).writes
    with pytest.raises(Overtaken):
        cache.write(decision, NOBODY)
    assert not client.exists(KEY, QUEUE)


def test_a_flush_after_the_look_stops_the_write(wire: Wire, client: redis.Redis) -> None:
    """A Redis that has lost its data has lost the token too."""
    cache = Cache(wire, NAME, OWN)
    token = take_lease(client)
    cache.look([], token, None, has_claims=False)
    client.flushdb()
    with pytest.raises(Overtaken):
        cache.write(put({"status": "a"}), NOBODY)
    with pytest.raises(LeaseLost):
        cache.look([], token, None, has_claims=False)


def test_a_connection_lost_after_the_look_stops_the_write(wire: Wire, client: redis.Redis) -> None:
    """Its WATCH is gone with it: the caller has to look again."""
    cache = Cache(wire, NAME, OWN)
    cache.look([], take_lease(client), None, has_claims=False)
    wire.close()
    wire.exchange([("PING",)])
    with pytest.raises(Transient):
        cache.write(put({"status": "a"}), NOBODY)
    assert not client.exists(KEY)


def test_what_a_look_sees(wire: Wire, client: redis.Redis) -> None:
    """Versions handled before, locks that exist, claims of the keys of the batch."""
    first, second = outcome(1, Put("config:api", KEY, {}), lock="lock:a"), outcome(2, ms=999, lock="lock:b")
    client.zadd(OWN.seen, {first.position.name(): 1000, second.position.name(): 999})
    client.hset(OWN.claimants, mapping={KEY: second.position.text(), "config:api:b": first.position.text()})
    client.set("lock:b", "17")
    cache, token = Cache(wire, NAME, OWN), take_lease(client)
    sight = cache.look([first, second], token, 1000, has_claims=True)
    assert sight.seen == {first.position.name()}
    assert sight.held == {"lock:b"}
    assert sight.claims == {KEY: second.text}
    unasked = cache.look([first], token, None, has_claims=False)
    assert (unasked.seen, unasked.held, unasked.claims) == (frozenset(), frozenset(), {})
    assert cache.held(["lock:a", "lock:b"]) == {"lock:b"}


def test_a_version_is_queued_once(wire: Wire, client: redis.Redis) -> None:
    """Repeated, it is not pushed again; neither after the queue was popped."""
    assert write(wire, client, asked(request(1), request(2))) == (2, [])
    assert write(wire, client, asked(request(1), request(3))) == (1, [])
    assert client.lrange(QUEUE, 0, -1) == ["item 1", "item 2", "item 3"]
    client.delete(QUEUE)
    assert write(wire, client, asked(request(1))) == (0, [])
    assert not client.exists(QUEUE)


def test_a_new_version_is_queued_again(wire: Wire, client: redis.Redis) -> None:
    """A request made anew is a new request, in whatever queue."""
    write(wire, client, asked(request(1)))
    assert write(wire, client, asked(request(1, ms=2000))) == (1, [])
    assert write(wire, client, asked(request(1, ms=3000, queue="queue:ai_generation:baja"))) == (1, [])


def test_queues_have_no_ttl(wire: Wire, client: redis.Redis) -> None:
    """A request waits as long as it takes."""
    write(wire, client, asked(request(1)))
    assert client.ttl(QUEUE) == client.ttl(f"{{{QUEUE}}}:enqueued") == -1


def test_what_was_queued_is_forgotten_with_the_request(wire: Wire, client: redis.Redis) -> None:
    """A document applied as something else needs no memory of its request; others keep theirs."""
    write(wire, client, asked(request(1), request(2)))
    write(wire, client, Decision(applied=[outcome(1)]), frozenset({QUEUE}))
    assert client.hlen(f"{{{QUEUE}}}:enqueued") == 1
    assert write(wire, client, asked(request(2))) == (0, [])


def test_a_queue_of_the_wrong_type_refuses_its_requests_only(wire: Wire, client: redis.Redis) -> None:
    """The rest of the batch is written, and the reason says what to do."""
    client.set(QUEUE, "a string")
    decision = asked(request(1), request(2, queue="queue:ai_generation:baja"))
    decision.writes = put({"status": "a"}).writes
    pushed, [(refused, reject)] = write(wire, client, decision)
    assert (pushed, refused) == (1, decision.applied[0])
    assert reject.reason == f"{QUEUE} holds something that is not a list: move it away"
    assert client.hgetall(KEY) == {"status": "a"}


def test_thousands_of_requests_in_one_batch(wire: Wire, client: redis.Redis) -> None:
    """However many there are, all are queued in their order."""
    assert write(wire, client, asked(*(request(n) for n in range(2500)))) == (2500, [])
    assert client.lrange(QUEUE, 0, -1) == [f"item {n}" for n in range(2500)]


def test_two_collections_may_feed_one_queue(wire: Wire, client: redis.Redis) -> None:
    """Documents of the same `_id` are told apart by their collection."""
    write(wire, client, asked(request(1)))
    other = Cache(wire, "other", companions("other"))
    client.set(companions("other").fence, "1:x")
    other.look([], "1:x", None, has_claims=False)
    assert other.write(asked(request(1)), NOBODY).pushed == 1


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
def test_a_key_is_shown_as_what_it_is(wire: Wire, fill: tuple[Any, ...], shown: Shown) -> None:
    """Whatever its type; its life is told when it has one; a key that is not there is no error."""
    keyspace = Keyspace(wire)
    assert keyspace.show("k") is None
    wire.exchange([fill])
    assert keyspace.show("k") == shown
    wire.exchange([("PEXPIRE", "k", 60_000)])
    told = keyspace.show("k")
    assert told is not None
    assert told.ttl_ms is not None
    assert 50_000 < told.ttl_ms <= 60_000


def test_a_key_is_replaced_only_while_nobody_touches_it(wire: Wire, client: redis.Redis) -> None:
    """Once it is watched, a change by someone else stops the replacement, which may then be tried again."""
    keyspace = Keyspace(wire)
    entry = fill(Put(CONFIG_API.name, KEY, {"status": "a"}))
    client.set("lock:a", "17")
    assert keyspace.watch([KEY], ["lock:a", "lock:b"]) == {"lock:a"}
    client.hset(KEY, "status", "changed")
    assert not keyspace.replace([entry])
    assert client.hgetall(KEY) == {"status": "changed"}
    keyspace.watch([KEY], [])
    assert keyspace.replace([entry])
    assert client.hgetall(KEY) == {"status": "a"}
    assert client.ttl(KEY) > 0


def test_ids_of_documents_are_told_apart_by_type(wire: Wire, client: redis.Redis) -> None:
    """An ObjectId and its hex are two documents."""
    hexed = "5f5f5f5f5f5f5f5f5f5f5f5f"
    pairs = []
    for document_id in (ObjectId(hexed), hexed):
        asking = applied(Position(DatetimeMS(1), document_id))
        pairs.append((asking, Request(QUEUE, str(document_id), asking)))
    assert write(wire, client, asked(*pairs)) == (2, [])
