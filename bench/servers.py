"""The servers that are measured on, what is in them, and whether a contender has done its work."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from random import Random
from typing import Any, Final, NamedTuple

import redis
from pymongo import MongoClient
from pymongo.collection import Collection

from bench.documents import Document, document, documents
from etl import demo as embedded
from schemas.documents import project
from schemas.families import CAMPAIGN_MESSAGES, GENERATION_META
from schemas.operations import Projection, Put

DATABASE: Final = "campaigns"
COLLECTION: Final = "promptContent"

_INSERTED_AT_A_TIME: Final = 5_000
_SAMPLE: Final = 100


class Wrong(Exception):
    """A contender did not leave in Redis what the documents give: its figure would mean nothing."""


class Bench(NamedTuple):
    """Both servers, with a client of each to arrange and to look."""

    servers: embedded.Servers
    collection: Collection[Document]
    redis: redis.Redis

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each server, by its name."""
        return {server.name: server.pid for server in self.servers}

    def grow(self, start: int, stop: int) -> None:
        """Insert the documents of these numbers, and have them on disk before anything is measured."""
        self.collection.create_index([("updated_at", 1), ("_id", 1)])
        for some in _batches(documents(start, stop)):
            self.collection.insert_many(some, ordered=False)
        self.collection.database.client.admin.command("fsync")

    def drop(self) -> None:
        """Remove the collection."""
        self.collection.drop()

    def flush(self) -> None:
        """Empty Redis: it is this benchmark's own."""
        self.redis.flushall(asynchronous=False)

    def check(self, count: int) -> None:
        """Make sure that Redis holds what the first `count` documents give.

        All keys are counted; type, value and TTL are compared for a sample.

        Raises:
            Wrong: it does not.
        """
        for family in (CAMPAIGN_MESSAGES, GENERATION_META):
            found = sum(1 for _ in self.redis.scan_iter(f"{family.prefix}*", count=10_000))
            if found != count:
                raise Wrong(f"{found} keys {family.prefix}*, but there are {count} documents")
        for number in Random(count).sample(range(count), min(count, _SAMPLE)):
            for entry in _entries(document(number)):
                self._check_entry(entry)

    def _check_entry(self, entry: Put) -> None:
        is_list = entry.family == CAMPAIGN_MESSAGES.name
        held: Any = self.redis.lrange(entry.key, 0, -1) if is_list else self.redis.hgetall(entry.key)
        if held != entry.read:
            raise Wrong(f"{entry.key} holds {held}, not {entry.read}")
        if not 0 < int(self.redis.ttl(entry.key)) <= 10_800:  # noqa: PLR2004 (of both families)
            raise Wrong(f"{entry.key} has not the TTL of its family")


@contextmanager
def start() -> Iterator[Bench]:
    """Start both servers, on free loopback ports with their data on disk; on leaving they are gone."""
    with (
        embedded.servers() as servers,
        MongoClient[Document](servers.mongo.uri, tz_aware=True) as mongo,
        redis.Redis.from_url(servers.redis.url, decode_responses=True) as client,
    ):
        yield Bench(servers, mongo[DATABASE][COLLECTION], client)


def _entries(of: Document) -> Iterable[Put]:
    projection = project(of, "generacion")
    entries = projection.entries if isinstance(projection, Projection) else ()
    puts = [entry for entry in entries if isinstance(entry, Put)]
    if len(puts) != 2:  # noqa: PLR2004 (the messages and what they cost)
        raise Wrong(f"the document {of['_id']} is not valid: {projection}")
    return puts


def _batches(items: Iterator[Document]) -> Iterator[list[Document]]:
    while batch := list(islice(items, _INSERTED_AT_A_TIME)):
        yield batch
