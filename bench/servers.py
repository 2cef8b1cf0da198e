"""The two servers: documents in MongoDB, and a check of the content of Redis."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from random import Random
from typing import Any, Final, NamedTuple

import redis
from pymongo import MongoClient
from pymongo.collection import Collection

from bench.documents import PLAIN, Document, Shape, document, documents
from etl.demo import MongoServer, RedisServer
from schemas.documents import project
from schemas.families import CAMPAIGN_MESSAGES
from schemas.operations import Projection, Put

COLLECTION: Final = "promptContent"
SLOW_MS: Final = 2.0

_INSERTED_AT_A_TIME: Final = 2_000
_SAMPLE: Final = 100
_REDIS: Final = ("--slowlog-log-slower-than", "200", "--slowlog-max-len", "100000")


class Wrong(Exception):
    """Redis does not hold the expected content after a run, so its figures mean nothing."""


class Source(NamedTuple):
    """A collection to copy: the first `documents` documents of a shape, in their own database."""

    database: str
    documents: int
    shape: Shape = PLAIN

    def entries(self, number: int) -> list[Put]:
        """The two cache entries of the document with this number."""
        projection = project(document(number, self.shape), "generacion")
        entries = projection.entries if isinstance(projection, Projection) else ()
        puts = [entry for entry in entries if isinstance(entry, Put)]
        if len(puts) != 2:  # noqa: PLR2004 (the messages and what they cost)
            raise Wrong(f"document {number} is not valid: {projection}")
        return puts


class Bench(NamedTuple):
    """Both servers with a client each."""

    mongod: MongoServer
    server: RedisServer
    mongo: MongoClient[Document]
    redis: redis.Redis

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each server, by its name."""
        return {"mongodb": self.mongod.pid, "redis": self.server.pid}

    def collection(self, source: Source) -> Collection[Document]:
        """The collection in MongoDB."""
        return self.mongo[source.database][COLLECTION]

    def fill(self, source: Source) -> None:
        """Insert the documents that are missing, and wait until they are on disk."""
        collection = self.collection(source)
        collection.create_index([("updated_at", 1), ("_id", 1)])
        missing = documents(collection.estimated_document_count(), source.documents, source.shape)
        while batch := list(islice(missing, _INSERTED_AT_A_TIME)):
            collection.insert_many(batch, ordered=False)
        self.mongo.admin.command("fsync")

    def flush(self) -> None:
        """Empty Redis and its slow log."""
        self.redis.flushall(asynchronous=False)
        self.redis.slowlog_reset()

    def slow_log(self) -> list[float]:
        """The duration in milliseconds of each command since the last flush that took 0.2 ms or longer."""
        return [entry["duration"] / 1000 for entry in self.redis.slowlog_get(-1)]

    @contextmanager
    def prioritised(self) -> Iterator[bool]:
        """Give Redis real-time priority during the block; yields whether this user may do that.

        Otherwise the slow log shows how long Redis waited for a core.
        """
        allowed = prioritise(self.server.pid)
        yield allowed
        if allowed:
            os.sched_setscheduler(self.server.pid, os.SCHED_OTHER, os.sched_param(0))

    def check(self, source: Source) -> None:
        """Compare the content of Redis with the documents.

        All keys are counted; type, value and TTL are compared for 100 documents.

        Raises:
            Wrong: they differ.
        """
        expected = 2 * len({source.shape.claim(number) for number in range(source.documents)})
        count = sum(1 for _ in self.redis.scan_iter("ai:*", count=10_000))
        if count != expected:
            raise Wrong(f"{count} keys of the contract, but the documents give {expected}")
        for number in Random(source.documents).sample(
            range(source.documents), min(source.documents, _SAMPLE)
        ):
            for entry in source.entries(source.shape.newest(number, source.documents)):
                self._check_entry(entry)

    def _check_entry(self, entry: Put) -> None:
        is_list = entry.family == CAMPAIGN_MESSAGES.name
        content: Any = self.redis.lrange(entry.key, 0, -1) if is_list else self.redis.hgetall(entry.key)
        if content != entry.read:
            raise Wrong(f"{entry.key} holds {content}, not {entry.read}")
        if not 0 < int(self.redis.ttl(entry.key)) <= 10_800:  # noqa: PLR2004 (of both families)
            raise Wrong(f"{entry.key} does not have the TTL of its family")


def prioritise(pid: int) -> bool:
    """Give a process real-time priority; False where this user may not do that."""
    try:
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return False
    return True


@contextmanager
def start() -> Iterator[Bench]:
    """Both servers during the block, with empty databases."""
    with (
        RedisServer(args=_REDIS) as server,
        MongoServer() as mongod,
        MongoClient[Document](mongod.uri, tz_aware=True) as mongo,
        redis.Redis.from_url(server.url, decode_responses=True, socket_timeout=300) as client,
    ):
        # Large documents fit into the cache too, so no contender waits for the disk.
        mongo.admin.command("setParameter", 1, wiredTigerEngineRuntimeConfig="cache_size=1G")
        yield Bench(mongod, server, mongo, client)
