"""The lease, over a fake Redis, a real one and a cluster: one holder at a time, renewed, given back."""

import re
import time
from unittest.mock import Mock

import pytest
import redis

from etl.cache.client import Wire, open_pool
from etl.cache.keys import state_keys
from etl.cache.scripts import SCRIPTS
from etl.checkpoint.lease import Lease, LeaseKeys, new_holder
from etl.errors import LeaseHeldError, TransientError
from tests.support.twins import NAME, Insistent, take_lease
from tests.support.waiting import eventually

OWN = state_keys(NAME)
FENCED = LeaseKeys(OWN.lease, OWN.fence)
PLAIN = LeaseKeys(OWN.leader)


@pytest.fixture(params=[FENCED, PLAIN], ids=["fenced", "plain"])
def keys(request: pytest.FixtureRequest) -> LeaseKeys:
    """With a fence, as a cycle and a backfill have it, and without, as a leader and a reconciliation do."""
    found: LeaseKeys = request.param
    return found


def lease(wire: Wire, keys: LeaseKeys, seconds: float = 30) -> Lease:
    """One that is not taken yet."""
    return Lease(wire, keys, seconds, Insistent())


def test_one_holder_at_a_time(wire: Wire, client: redis.Redis, keys: LeaseKeys) -> None:
    """The second comer is told who holds it and for how long; afterwards it is free."""
    first, second = lease(wire, keys), lease(wire, keys)
    with first.hold():
        holder = str(client.get(keys.lease))
        with pytest.raises(LeaseHeldError, match=f"^{holder} is at work") as refusal, second.hold():
            pass
        assert refusal.value.holder == holder
        assert 29 < refusal.value.seconds <= 30
        assert (first.held, second.held) == (True, False)
    assert not first.held
    assert not client.exists(keys.lease)
    with second.hold():
        assert second.held


def test_two_holders_of_one_process_are_told_apart(wire: Wire, client: redis.Redis) -> None:
    """Two containers may have the same host name and process id: only the nonce differs."""
    assert re.fullmatch(r".+:\d+:[0-9a-f]{12}", new_holder())
    assert new_holder() != new_holder()
    with lease(wire, PLAIN).hold(), pytest.raises(LeaseHeldError):
        lease(wire, PLAIN).acquire()
    assert client.dbsize() == 0


def test_a_fence_gives_a_newer_token_each_time(wire: Wire, client: redis.Redis) -> None:
    """Its number rises, and it names its holder."""
    one = lease(wire, FENCED)
    with one.hold() as first:
        assert first == client.get(OWN.fence) == "1:" + str(client.get(OWN.lease))
    with one.hold() as second:
        assert second == "2:" + str(client.get(OWN.lease))


def test_only_a_fenced_lease_leaves_a_fence(wire: Wire, client: redis.Redis) -> None:
    """The others leave no key behind."""
    with lease(wire, PLAIN).hold() as holder:
        assert client.get(OWN.leader) == holder
    assert client.dbsize() == 0


def test_it_lasts_so_long_where_the_holder_dies(wire: Wire, client: redis.Redis, keys: LeaseKeys) -> None:
    """It expires by itself."""
    with lease(wire, keys).hold():
        assert 29_000 < client.pttl(keys.lease) <= 30_000


def test_it_is_renewed_while_it_is_held(wire: Wire, client: redis.Redis, keys: LeaseKeys) -> None:
    """A holder that works longer than it lasts keeps it, and is certain of it."""
    with (one := lease(wire, keys, 0.3)).hold():
        time.sleep(0.5)
        assert client.exists(keys.lease)
        assert one.held


def test_to_acquire_it_again_is_to_keep_it(wire: Wire, client: redis.Redis, keys: LeaseKeys) -> None:
    """The holder and its token stay the same."""
    one = lease(wire, keys)
    assert one.acquire() == one.acquire()
    one.release()
    assert not client.exists(keys.lease)


def test_a_lease_that_another_took_is_not_given_back(
    wire: Wire, client: redis.Redis, keys: LeaseKeys
) -> None:
    """A holder that slept past the end neither renews nor releases the lease of its successor."""
    with (one := lease(wire, keys, 0.3)).hold():
        client.set(keys.lease, "another:1:ab")
        assert eventually(lambda: not one.held, 2)
        with pytest.raises(LeaseHeldError, match="another:1:ab"):
            one.acquire()
    assert client.get(keys.lease) == "another:1:ab"


def test_a_lease_that_ran_out_unnoticed_is_taken_again(
    wire: Wire, client: redis.Redis, keys: LeaseKeys
) -> None:
    """Where no other came meanwhile the holder goes on."""
    with (one := lease(wire, keys, 0.3)).hold():
        holder = client.get(keys.lease)
        client.delete(keys.lease)
        assert eventually(lambda: client.get(keys.lease) == holder and one.held, 2)


def test_a_fence_that_moved_on_ends_the_renewal(wire: Wire, client: redis.Redis) -> None:
    """Also where the lease of the one in between is over: it may have worked."""
    with (one := lease(wire, FENCED, 0.3)).hold():
        take_lease(client)
        client.delete(OWN.lease)
        assert eventually(lambda: not one.held, 2)
        time.sleep(0.2)
        assert not client.exists(OWN.lease)


def test_a_lost_answer_does_not_lock_the_asker_out(wire: Wire) -> None:
    """Asked again in the same name, the lease that was given is given again, with the same token."""
    ask = SCRIPTS["acquire"].call((OWN.lease, OWN.fence), "host:1:a1", 30_000)
    first, second = wire.exchange([ask, ask])
    assert first == second == [1, "1:host:1:a1", 0]
    [(taken, holder, left)] = wire.exchange(
        [SCRIPTS["acquire"].call((OWN.lease, OWN.fence), "host:1:c3", 30_000)]
    )
    assert (taken, holder) == (0, "host:1:a1")
    assert 29_000 < left <= 30_000


def test_an_answer_that_was_lost_with_the_lease_leaves_the_token(wire: Wire, client: redis.Redis) -> None:
    """Asked again after the lease has run out: no other has come, so it is the same token."""
    ask = SCRIPTS["acquire"].call((OWN.lease, OWN.fence), "host:1:a1", 30_000)
    wire.exchange([ask])
    client.delete(OWN.lease)
    assert wire.exchange([ask]) == [[1, "1:host:1:a1", 0]]


def test_a_lease_that_could_not_be_given_back_is_acquired_anew(
    wire: Wire, client: redis.Redis, keys: LeaseKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage its holder does not wait for the end of its own lease; the token is a new one."""
    one = lease(wire, keys)
    first = one.acquire()
    with monkeypatch.context() as patch:
        patch.setattr(wire, "exchange", Mock(side_effect=TransientError("away")))
        one.release()
    assert client.exists(keys.lease)
    with one.hold() as second:
        assert second != first
    assert not client.exists(keys.lease)


def test_a_token_is_never_given_twice(client: redis.Redis) -> None:
    """Not even after a flush, when the numbers begin again."""
    first = take_lease(client)
    client.flushdb()
    second = take_lease(client)
    assert first != second
    assert first.partition(":")[0] == second.partition(":")[0] == "1"


def test_a_refusal_leaves_no_connection_behind(redis_url: str, redis_client: redis.Redis) -> None:
    """A catch-up and a daemon that stands by ask again and again."""
    pool = open_pool(redis_url, 5)

    def ours() -> int:
        return sum(peer["name"] == "promptcontent-etl" for peer in redis_client.client_list())

    redis_client.set(PLAIN.lease, "another:1:ab", px=60_000)
    before = ours()
    for _ in range(5):
        with pytest.raises(LeaseHeldError):
            Lease(Wire(pool), PLAIN, 30, Insistent()).acquire()
    assert ours() == before + 1, "one, in the pool"
    pool.disconnect()


def test_a_lease_is_given_back_though_its_connections_were_closed(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """As a server does with those that were idle for long, and a load balancer."""
    pool = open_pool(redis_url, 5)
    with Lease(Wire(pool), PLAIN, 30, Insistent()).hold():
        ours = [peer["id"] for peer in redis_client.client_list() if peer["name"] == "promptcontent-etl"]
        assert ours
        for one in ours:
            redis_client.client_kill_filter(_id=one)
        assert redis_client.exists(PLAIN.lease)
    assert not redis_client.exists(PLAIN.lease)
    pool.disconnect()
