"""Collections with documents of the benchmark, and what it measures on."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import redis
from pymongo.collection import Collection
from pymongo.database import Database

from bench.documents import documents
from bench.servers import Bench
from etl.app import App
from etl.demo import MongoServer, RedisServer, Servers
from tests.support.pipeline import settings_for, sync
from tests.support.types import Document, StartRedis

COUNT = 1_200

Warm = Callable[[str], None]
"""Has the product fill the Redis at an address from this test's collection, in this process."""


@pytest.fixture
def filled(collection: Collection[Document]) -> Collection[Document]:
    """A collection with `COUNT` documents of the benchmark."""
    collection.insert_many(documents(0, COUNT))
    return collection


@pytest.fixture
def warm(mongod: MongoServer, database: Database[Document]) -> Warm:
    """The product."""

    def run(url: str) -> None:
        with closing(App(settings_for(mongod.uri, database.name, url))) as app:
            sync(app)

    return run


@pytest.fixture
def own_redis(start_redis: StartRedis) -> RedisServer:
    """A Redis that may be flushed and told what to refuse."""
    return start_redis()


@pytest.fixture
def bench(mongod: MongoServer, own_redis: RedisServer, collection: Collection[Document]) -> Iterator[Bench]:
    """Both servers as the benchmark has them."""
    with redis.Redis.from_url(own_redis.url, decode_responses=True) as client:
        yield Bench(Servers(mongod, own_redis), collection, client)
