"""Embedded MongoDB and Redis servers for the demo, the tests and interactive use.

    from etl import demo as embedded

    with embedded.servers() as servers:
        print(servers.mongo.uri, servers.redis.url)

Both listen on free loopback ports, keep their data in folders of their own, and end with their owner,
even when the owner is killed with `kill -9`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from etl.demo.mongo_server import MongoServer
from etl.demo.redis_server import RedisServer

__all__ = ["MongoServer", "RedisServer", "Servers", "servers"]


class Servers(NamedTuple):
    """The two servers, up and answering."""

    mongo: MongoServer
    redis: RedisServer


@contextmanager
def servers() -> Iterator[Servers]:
    """Start both, empty; remove them and their data on exit.

    Raises `ConfigurationError` if there is no server for this platform, `EtlError` if one does not start.
    """
    with RedisServer() as redis, MongoServer() as mongo:
        yield Servers(mongo, redis)
