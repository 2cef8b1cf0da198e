"""Types of fixtures, for annotations."""

from collections.abc import Callable
from typing import Any

from etl.demo import MongoServer, RedisServer
from etl.demo.process import Server
from tests.support.proxy import Proxy

Document = dict[str, Any]

StartMongo = Callable[..., MongoServer]  # the keyword arguments of `MongoServer`
StartRedis = Callable[..., RedisServer]  # the keyword arguments of `RedisServer`
ProxyTo = Callable[[Server], Proxy]

Warm = Callable[[str], None]
"""Fills the Redis at a URL from the collection of a test, in this process."""
