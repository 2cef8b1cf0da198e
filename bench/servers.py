"""The servers that are measured on, what is in them, and whether a contender has done its work."""

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
    """A contender did not leave in Redis what the documents give: its figure would mean nothing."""


class Source(NamedTuple):
    """What is copied: the first documents of a shape, in a database of their own."""

    database: str
    documents: int
    shape: Shape = PLAIN

    def entries(self, number: int) -> list[Put]:
        """What the document of this number asks of the cache."""
        projection = project(document(number, self.shape), "generacion")
        entries = projection.entries if isinstance(projection, Projection) else ()
        puts = [entry for entry in entries if isinstance(entry, Put)]
        if len(puts) != 2:  # noqa: PLR2004 (the messages and what they cost)
            raise Wrong(f"document {number} is not valid: {projection}")
        return puts


class Bench(NamedTuple):
    """Both servers, with a client of each to arrange and to look."""

    mongod: MongoServer
    server: RedisServer
    mongo: MongoClient[Document]
    redis: redis.Redis

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each server, by its name."""
        return {"mongodb": self.mongod.pid, "redis": self.server.pid}

    def collection(self, source: Source) -> Collection[Document]:
        """Where its documents are."""
        return self.mongo[source.database][COLLECTION]

    def fill(self, source: Source) -> None:
        """Insert the documents that are missing, and have them on disk before anything is measured."""
        collection = self.collection(source)
        collection.create_index([("updated_at", 1), ("_id", 1)])
        missing = documents(collection.estimated_document_count(), source.documents, source.shape)
        while some := list(islice(missing, _INSERTED_AT_A_TIME)):
            collection.insert_many(some, ordered=False)
        self.mongo.admin.command("fsync")

    def flush(self) -> None:
        """Empty Redis and its slow log: they are this benchmark's own."""
        self.redis.flushall(asynchronous=False)
        self.redis.slowlog_reset()

    def slow_log(self) -> list[float]:
        """Milliseconds of each command since the last flush that took 0.2 ms or longer."""
        return [entry["duration"] / 1000 for entry in self.redis.slowlog_get(-1)]

    @contextmanager
    def prioritised(self) -> Iterator[bool]:
        """Let Redis never wait for a core meanwhile, so that its slow log shows what commands take; whether it may."""
        allowed = prioritise(self.server.pid)
        yield allowed
        if allowed:
            os.sched_setscheduler(self.server.pid, os.SCHED_OTHER, os.sched_param(0))

    def check(self, source: Source) -> None:
        """Make sure that Redis holds what the documents give.

        All keys are counted; type, value and TTL are compared for a sample.

        Raises:
            Wrong: it does not.
        """
        wanted = 2 * len({source.shape.claim(number) for number in range(source.documents)})
        found = sum(1 for _ in self.redis.scan_iter("ai:*", count=10_000))
        if found != wanted:
            raise Wrong(f"{found} keys of the contract, but the documents give {wanted}")
        for number in Random(source.documents).sample(
            range(source.documents), min(source.documents, _SAMPLE)
        ):
            for entry in source.entries(source.shape.newest(number, source.documents)):
                self._check_entry(entry)

    def _check_entry(self, entry: Put) -> None:
        is_list = entry.family == CAMPAIGN_MESSAGES.name
        held: Any = self.redis.lrange(entry.key, 0, -1) if is_list else self.redis.hgetall(entry.key)
        if held != entry.read:
            raise Wrong(f"{entry.key} holds {held}, not {entry.read}")
        if not 0 < int(self.redis.ttl(entry.key)) <= 10_800:  # noqa: PLR2004 (of both families)
            raise Wrong(f"{entry.key} has not the TTL of its family")


def prioritise(pid: int) -> bool:
    """Have a process run before all others; False where this user may not ask for that."""
    try:
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return False
    return True


@contextmanager
def start() -> Iterator[Bench]:
    """Start both servers, on free loopback ports with their data on disk; on leaving they are gone."""
    with (
        RedisServer(args=_REDIS) as server,
        MongoServer() as mongod,
        MongoClient[Document](mongod.uri, tz_aware=True) as mongo,
        redis.Redis.from_url(server.url, decode_responses=True) as client,
    ):
        # No contender waits for the disk, also where documents are large.
        mongo.admin.command("setParameter", 1, wiredTigerEngineRuntimeConfig="cache_size=1G")
        yield Bench(mongod, server, mongo, client)
