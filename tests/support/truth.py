"""What the cache should hold, straight from MongoDB, and what it does hold."""

from collections.abc import Mapping
from typing import Any

import redis
from pymongo.collection import Collection

from schemas.documents import project
from schemas.families import GENERATION_QUEUE
from schemas.operations import Enqueue, Evict, Keep, Projection
from tests.support.types import Document

Contents = dict[str, list[str] | dict[str, str]]
"""Key -> value, of everything that documents fill. The items of a queue are sorted: their order depends on
when documents were read, how often each is there does not."""


def truth(*collections: Collection[Document]) -> Contents:
    """What documents ask for: the greatest `(updated_at, _id)` decides, each request is queued once."""
    contents: Contents = {}
    for collection in collections:
        for document in collection.find().sort({"updated_at": 1, "_id": 1}):
            _apply(contents, document)
    return {key: _canonical(key, value) for key, value in contents.items()}


def held(client: redis.Redis) -> Contents:
    """What Redis has, but for the ETL's own keys.

    Raises `AssertionError` for a key without a TTL that should have one.
    """
    own = ("{", "etl:")
    keys = [key for key in client.scan_iter(count=1000) if not key.startswith(own)]
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.type(key)
        pipeline.pttl(key)
    answers = pipeline.execute()
    for key, ttl in zip(keys, answers[1::2], strict=True):
        assert ttl > 0 or key.startswith(GENERATION_QUEUE.prefix), f"{key} has no TTL"
    return _values(client, dict(zip(keys, answers[::2], strict=True)))


def _values(client: redis.Redis, types: Mapping[str, str]) -> Contents:
    pipeline = client.pipeline(transaction=False)
    for key, kind in types.items():
        pipeline.hgetall(key) if kind == "hash" else pipeline.lrange(key, 0, -1)
    return {key: _canonical(key, value) for key, value in zip(types, pipeline.execute(), strict=True)}


def _apply(contents: Contents, document: Document) -> None:
    projection = project(document, "generacion")
    assert isinstance(projection, Projection), projection
    for entry in projection.entries:
        if isinstance(entry, Keep):
            continue
        if isinstance(entry, Evict):
            contents.pop(entry.key, None)
        elif isinstance(entry, Enqueue):
            queue = contents.setdefault(entry.key, [])
            assert isinstance(queue, list)
            queue.append(entry.item)
        else:
            contents[entry.key] = entry.read


def _plain(value: Any) -> list[str] | dict[str, str]:
    return dict(value) if isinstance(value, Mapping) else list(value)


def _canonical(key: str, value: list[str] | dict[str, str]) -> list[str] | dict[str, str]:
    return sorted(value) if key.startswith(GENERATION_QUEUE.prefix) else value
