"""The wire to Redis, over a fake one and a real one: replies in order, and errors sorted."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import redis

from etl.cache.client import SCRIPTS, Wire, open_pool
from etl.errors import CycleFailed, Transient


def test_replies_come_in_the_order_of_the_commands(wire: Wire) -> None:
    """All commands are carried out, and each has its reply as RESP2 gives it."""
    replies = wire.exchange([("SET", "a", "ñ"), ("GET", "a"), ("HSET", "h", "f", 1), ("HGETALL", "h")])
    assert replies == ["OK", "ñ", 1, ["f", "1"]]
    assert wire.exchange([("GET", "missing"), ("EXISTS", "a"), ("ZMSCORE", "z", "")]) == [None, 1, [None]]


def test_an_error_is_raised_after_all_replies_are_read(wire: Wire) -> None:
    """The commands after the one that failed are carried out, and the wire goes on working."""
    with pytest.raises(CycleFailed, match="WRONGTYPE"):
        wire.exchange([("SET", "a", 1), ("LPUSH", "a", 1), ("SET", "b", 2)])
    assert wire.exchange([("GET", "b")]) == ["2"]


def test_an_error_inside_a_transaction_is_raised(wire: Wire) -> None:
    """It is not taken for a reply, though Redis carries out the rest of the transaction."""
    with pytest.raises(CycleFailed, match="WRONGTYPE"):
        wire.exchange([("MULTI",), ("SET", "a", 1), ("LPUSH", "a", 1), ("EXEC",)])


def test_an_error_inside_a_script_is_raised(wire: Wire, client: redis.Redis) -> None:
    """A script that meets a key of the wrong type raises as a command would."""
    client.set("fence", "1:x")
    client.lpush("lease", "not a string")
    with pytest.raises(CycleFailed):
        wire.exchange([SCRIPTS["renew"].call(("checkpoint", "lease"), "h", 1, "1:h"), ("GET", "lease")])


def test_a_transaction_is_bound_to_its_connection(wire: Wire) -> None:
    """After the connection was lost nothing is sent in its name: its WATCH is gone."""
    wire.exchange([("WATCH", "a")])
    generation = wire.generation
    with pytest.raises(CycleFailed):
        wire.exchange([("INCR", "a", "too", "many")])
    wire.exchange([("PING",)])
    with pytest.raises(Transient):
        wire.exchange([("SET", "b", 1)], generation)
    assert wire.exchange([("EXISTS", "b")]) == [0]


@pytest.fixture
def real_wire(redis_url: str) -> Iterator[Wire]:
    """A wire to the real Redis."""
    pool = open_pool(redis_url, 5)
    with closing(Wire(pool)) as wire:
        yield wire
    pool.disconnect()


def close_idle(client: redis.Redis) -> None:
    """Do as Redis with `timeout`, and a load balancer, with a connection that was idle for long."""
    for peer in client.client_list():
        if peer["name"] == "promptcontent-etl":
            client.client_kill_filter(_id=peer["id"])


def test_a_connection_that_was_closed_while_idle_is_replaced_silently(
    real_wire: Wire, redis_client: redis.Redis
) -> None:
    """The next exchange succeeds, and is carried out once."""
    assert real_wire.exchange([("INCR", "a")]) == [1]
    close_idle(redis_client)
    assert real_wire.exchange([("INCR", "a")]) == [2]


def test_a_watch_does_not_outlive_its_connection(real_wire: Wire, redis_client: redis.Redis) -> None:
    """What is bound to the connection that was closed is refused."""
    real_wire.exchange([("WATCH", "a")])
    close_idle(redis_client)
    with pytest.raises(Transient):
        real_wire.exchange([("MULTI",), ("INCR", "a"), ("EXEC",)], real_wire.generation)
    assert not redis_client.exists("a")


def test_a_watched_key_that_changes_stops_the_transaction(wire: Wire, client: redis.Redis) -> None:
    """EXEC answers nil, and nothing is carried out."""
    wire.exchange([("WATCH", "a")])
    client.set("a", 1)
    assert wire.exchange([("MULTI",), ("SET", "b", 1), ("EXEC",)])[-1] is None
    assert not client.exists("b")


def test_scripts_that_redis_forgot_are_loaded_again(connect: Callable[[], Wire], client: redis.Redis) -> None:
    """The exchange after the one that found them missing succeeds."""
    wire = connect()
    command = SCRIPTS["release"].call(("lease",), "1:x host")
    wire.exchange([command])
    client.script_flush()
    with pytest.raises(Transient):
        wire.exchange([command])
    assert wire.exchange([command]) == [0]
