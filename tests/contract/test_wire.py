"""The wire to Redis: replies in order, and errors by class."""

from collections.abc import Iterator

import pytest
import redis

from etl.cache.client import Wire, open_pool
from etl.cache.scripts import SCRIPTS
from etl.errors import CycleFailed


def test_replies_are_resp2_in_the_order_of_the_commands(wire: Wire) -> None:
    replies = wire.exchange([("SET", "a", "ñ"), ("GET", "a"), ("HSET", "h", "f", 1), ("HGETALL", "h")])
    assert replies == ["OK", "ñ", 1, ["f", "1"]]
    assert wire.exchange([("GET", "missing"), ("EXISTS", "a"), ("ZMSCORE", "z", "")]) == [None, 1, [None]]


def test_error_is_raised_after_all_replies_are_read(wire: Wire) -> None:
    """The commands after the failed one are carried out, and the wire remains usable."""
    with pytest.raises(CycleFailed, match="WRONGTYPE"):
        wire.exchange([("SET", "a", 1), ("LPUSH", "a", 1), ("SET", "b", 2)])
    assert wire.exchange([("GET", "b")]) == ["2"]


def test_error_inside_a_script_is_raised(wire: Wire, client: redis.Redis) -> None:
    client.set("fence", "1:x")
    client.lpush("lease", "not a string")
    with pytest.raises(CycleFailed):
        wire.exchange([SCRIPTS["renew"].call(("checkpoint", "lease"), "h", 1, "1:h"), ("GET", "lease")])


@pytest.fixture
def real_wire(redis_url: str) -> Iterator[Wire]:
    """A wire to the real Redis."""
    pool = open_pool(redis_url, 5)
    yield Wire(pool)
    pool.disconnect()


def close_idle(client: redis.Redis) -> None:
    """Close the connections, as Redis with `timeout` or a load balancer closes idle ones."""
    for peer in client.client_list():
        if peer["name"] == "promptcontent-etl":
            client.client_kill_filter(_id=peer["id"])


def test_connection_closed_while_idle_is_replaced(real_wire: Wire, redis_client: redis.Redis) -> None:
    """The next exchange succeeds and is carried out once."""
    assert real_wire.exchange([("INCR", "a")]) == [1]
    close_idle(redis_client)
    assert real_wire.exchange([("INCR", "a")]) == [2]


def test_scripts_that_redis_forgot_are_loaded_again(wire: Wire, client: redis.Redis) -> None:
    """A server that was restarted or promoted has no scripts."""
    command = SCRIPTS["release"].call(("lease",), "h")
    assert wire.exchange([command]) == [0]
    client.script_flush()
    assert wire.exchange([command, ("PING",)]) == [0, "PONG"]
