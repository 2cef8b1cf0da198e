"""The types of what fixtures give, for the annotations of tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from etl.demo import MongoServer, RedisServer
from etl.demo.process import Server
from tests.support.proxy import Proxy

DATA = Path(__file__).parents[1] / "data"
"""The users' sample documents and what they become."""

Document = dict[str, Any]

StartMongo = Callable[..., MongoServer]  # the keyword arguments of `MongoServer`
StartRedis = Callable[..., RedisServer]  # the keyword arguments of `RedisServer`
ProxyTo = Callable[[Server], Proxy]

Warm = Callable[[str], None]
"""Fills the Redis at a URL from the collection of a test, in this process."""
