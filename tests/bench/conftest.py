"""Servers, a collection and the product for tests of the benchmark."""

from collections.abc import Iterator

import pytest
import redis
from pymongo import MongoClient
from pymongo.database import Database

from bench.servers import Bench, Source
from etl.demo import MongoServer
from tests.support.pipeline import OpenApp, sync
from tests.support.types import Document, StartRedis, Warm


@pytest.fixture
def bench(
    mongod: MongoServer, start_redis: StartRedis, mongo_client: MongoClient[Document]
) -> Iterator[Bench]:
    """Both servers; the Redis is for this test alone."""
    server = start_redis()
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        yield Bench(mongod, server, mongo_client, client)


@pytest.fixture
def source(bench: Bench, database: Database[Document]) -> Source:
    """A collection of plain documents in the database of this test."""
    source = Source(database.name, 1_200)
    bench.fill(source)
    return source


@pytest.fixture
def warm(open_app: OpenApp) -> Warm:
    """Run a cycle of the product."""

    def run(url: str) -> None:
        sync(open_app(redis=url))

    return run
