"""The lease: one holder at a time, renewal, release."""

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
from tests.support.assembly import NAME, ImmediateRetry, take_lease
from tests.support.waiting import eventually

OWN = state_keys(NAME)
FENCED = LeaseKeys(OWN.lease, OWN.fence)
PLAIN = LeaseKeys(OWN.leader)


@pytest.fixture(params=[FENCED, PLAIN], ids=["fenced", "plain"])
def keys(request: pytest.FixtureRequest) -> LeaseKeys:
    """With a fence (cycle, backfill, follower) and without (leader, reconciliation)."""
    found: LeaseKeys = request.param
    return found


def lease(wire: Wire, keys: LeaseKeys, seconds: float = 30) -> Lease:
    """A lease that is not acquired yet."""
    return Lease(wire, keys, seconds, ImmediateRetry())


def test_one_holder_at_a_time(wire: Wire, client: redis.Redis, keys: LeaseKeys) -> None:
    """The error of the second has the holder and the remaining time."""
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


def test_holders_of_one_process_have_different_names(wire: Wire, client: redis.Redis) -> None:
    """Two containers may have the same host name and process id; only the nonce differs."""
    assert re.fullmatch(r".+:\d+:[0-9a-f]{12}", new_holder())
    assert new_holder() != new_holder()
    with lease(wire, PLAIN).hold(), pytest.raises(LeaseHeldError):
        lease(wire, PLAIN).acquire()
    assert client.dbsize() == 0


def test_each_fencing_token_is_greater(wire: Wire, client: redis.Redis) -> None:
    """It has a number and the holder."""
    one = lease(wire, FENCED)
    with one.hold() as first:
        assert first == client.get(OWN.fence) == "1:" + str(client.get(OWN.lease))
    with one.hold() as second:
        assert second == "2:" + str(client.get(OWN.lease))


def test_lease_without_fence_leaves_no_key(wire: Wire, client: redis.Redis) -> None:
    with lease(wire, PLAIN).hold() as holder:
        assert client.get(OWN.leader) == holder
    assert client.dbsize() == 0


def test_lease_expires_if_its_holder_dies(wire: Wire, client: redis.Redis, keys: LeaseKeys) -> None:
    with lease(wire, keys).hold():
        assert 29_000 < client.pttl(keys.lease) <= 30_000


def test_lease_is_renewed_while_it_is_held(wire: Wire, client: redis.Redis, keys: LeaseKeys) -> None:
    """A holder may work longer than the lease lasts."""
    with (one := lease(wire, keys, 0.3)).hold():
        time.sleep(0.5)
        assert client.exists(keys.lease)
        assert one.held


def test_acquiring_a_held_lease_keeps_its_token(wire: Wire, client: redis.Redis, keys: LeaseKeys) -> None:
    one = lease(wire, keys)
    assert one.acquire() == one.acquire()
    one.release()
    assert not client.exists(keys.lease)


def test_lease_taken_over_is_not_released(wire: Wire, client: redis.Redis, keys: LeaseKeys) -> None:
    """A holder that slept too long neither renews nor releases the lease of its successor."""
    with (one := lease(wire, keys, 0.3)).hold():
        client.set(keys.lease, "another:1:ab")
        assert eventually(lambda: not one.held, 2)
        with pytest.raises(LeaseHeldError, match="another:1:ab"):
            one.acquire()
    assert client.get(keys.lease) == "another:1:ab"


def test_expired_lease_is_taken_again_if_it_is_free(wire: Wire, client: redis.Redis, keys: LeaseKeys) -> None:
    """Its holder goes on if there was no other meanwhile."""
    with (one := lease(wire, keys, 0.3)).hold():
        holder = client.get(keys.lease)
        client.delete(keys.lease)
        assert eventually(lambda: client.get(keys.lease) == holder and one.held, 2)


def test_newer_fence_ends_the_renewal(wire: Wire, client: redis.Redis) -> None:
    """Also if the lease of the holder in between has expired: it may have written."""
    with (one := lease(wire, FENCED, 0.3)).hold():
        take_lease(client)
        client.delete(OWN.lease)
        assert eventually(lambda: not one.held, 2)
        time.sleep(0.2)
        assert not client.exists(OWN.lease)


def test_lost_reply_does_not_lock_out_the_holder(wire: Wire) -> None:
    """A second request of the same holder gets the lease with the same token."""
    ask = SCRIPTS["acquire"].call((OWN.lease, OWN.fence), "host:1:a1", 30_000)
    first, second = wire.exchange([ask, ask])
    assert first == second == [1, "1:host:1:a1", 0]
    [(taken, holder, left)] = wire.exchange(
        [SCRIPTS["acquire"].call((OWN.lease, OWN.fence), "host:1:c3", 30_000)]
    )
    assert (taken, holder) == (0, "host:1:a1")
    assert 29_000 < left <= 30_000


def test_lost_reply_and_expired_lease_keep_the_token(wire: Wire, client: redis.Redis) -> None:
    """There was no other holder meanwhile."""
    ask = SCRIPTS["acquire"].call((OWN.lease, OWN.fence), "host:1:a1", 30_000)
    wire.exchange([ask])
    client.delete(OWN.lease)
    assert wire.exchange([ask]) == [[1, "1:host:1:a1", 0]]


def test_lease_that_could_not_be_released_is_acquired_again(
    wire: Wire, client: redis.Redis, keys: LeaseKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage its holder does not wait for the expiry of its own lease. The token is new."""
    one = lease(wire, keys)
    first = one.acquire()
    with monkeypatch.context() as patch:
        patch.setattr(wire, "exchange", Mock(side_effect=TransientError("away")))
        one.release()
    assert client.exists(keys.lease)
    with one.hold() as second:
        assert second != first
    assert not client.exists(keys.lease)


def test_token_is_never_given_twice(client: redis.Redis) -> None:
    """Not even after a flush, when the numbers restart."""
    first = take_lease(client)
    client.flushdb()
    second = take_lease(client)
    assert first != second
    assert first.partition(":")[0] == second.partition(":")[0] == "1"


def test_refused_lease_leaves_no_connection_open(redis_url: str, redis_client: redis.Redis) -> None:
    """A catch-up and a standby daemon try many times."""
    pool = open_pool(redis_url, 5)

    def connections() -> int:
        return sum(peer["name"] == "promptcontent-etl" for peer in redis_client.client_list())

    redis_client.set(PLAIN.lease, "another:1:ab", px=60_000)
    before = connections()
    for _ in range(5):
        with pytest.raises(LeaseHeldError):
            Lease(Wire(pool), PLAIN, 30, ImmediateRetry()).acquire()
    assert connections() == before + 1, "one, in the pool"
    pool.disconnect()


def test_lease_is_released_after_its_connections_were_closed(
    redis_url: str, redis_client: redis.Redis
) -> None:
    """A server or a load balancer may close idle connections."""
    pool = open_pool(redis_url, 5)
    with Lease(Wire(pool), PLAIN, 30, ImmediateRetry()).hold():
        connections = [
            peer["id"] for peer in redis_client.client_list() if peer["name"] == "promptcontent-etl"
        ]
        assert connections
        for one in connections:
            redis_client.client_kill_filter(_id=one)
        assert redis_client.exists(PLAIN.lease)
    assert not redis_client.exists(PLAIN.lease)
    pool.disconnect()
