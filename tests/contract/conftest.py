"""The stages over real servers and over fakes of them: each test of this folder runs on all of them."""

from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient

from etl.cache.client import Wire, open_pool
from etl.cache.cluster import ClusterWire
from etl.cache.writer import CacheWriter
from etl.mongo.reader import MongoReader
from etl.sync.processor import Processor
from tests.support.assembly import NAME, ImmediateRetry, fake_documents, fake_redis
from tests.support.batches import KNOWN, Documents
from tests.support.readers import FakeReader
from tests.support.results import TTLS
from tests.support.store import Store
from tests.support.types import Document


@pytest.fixture(params=["fake", "real", "unindexed"])
def store(request: pytest.FixtureRequest) -> Store:
    """An empty collection: of the fake, of MongoDB, and of MongoDB without the index."""
    if request.param == "fake":
        documents = fake_documents()
        fake = FakeReader(documents)
        return Store(fake, documents, fake.raw.append)
    client: MongoClient[Document] = request.getfixturevalue("mongo_client")
    real = request.getfixturevalue("database" if request.param == "unindexed" else "collection")
    collection = real[NAME] if request.param == "unindexed" else real
    source = MongoReader(client, collection.database.name, NAME)
    source.prepare()
    raw = client[collection.database.name].get_collection(NAME)
    return Store(source, collection, lambda data: raw.insert_one(RawBSONDocument(data)))


@pytest.fixture(params=["fake", "real", "cluster"])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of Redis: a fake one, a real one, or a real cluster."""
    return str(request.param)


@pytest.fixture
def client(kind: str, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    """A client of an empty Redis, to prepare and to inspect."""
    if kind == "real":
        yield request.getfixturevalue("redis_client")
    elif kind == "cluster":
        yield request.getfixturevalue("cluster_client")
    else:
        with fake_redis() as client:
            yield client


@pytest.fixture
def wire(kind: str, client: redis.Redis, request: pytest.FixtureRequest) -> Iterator[Wire]:
    """A wire to that Redis."""
    if kind == "real":
        pool = open_pool(request.getfixturevalue("redis_url"), 5)
        yield Wire(pool)
        pool.disconnect()
    elif kind == "cluster":
        with closing(ClusterWire(request.getfixturevalue("shared_cluster").url, 5)) as wire:
            yield wire
    else:
        yield Wire(client.connection_pool)


@pytest.fixture
def writer(wire: Wire) -> CacheWriter:
    """Stage 3, with the default TTLs."""
    return CacheWriter(wire, TTLS, memory_seconds=1_440)


@pytest.fixture
def documents() -> Documents:
    """An empty collection."""
    return Documents()


@pytest.fixture
def processor(writer: CacheWriter, documents: Documents) -> Processor:
    """The processor of a collection; the settings name a second one."""
    return Processor(
        writer, NAME, documents.reread, lambda name: name.partition(" ")[0] in KNOWN, ImmediateRetry()
    )
