"""Documents, writes and a processor for tests of single batches."""

from collections.abc import Callable, Collection
from typing import Any

import redis

from etl.cache.writer import DEADLINE_SECONDS
from etl.model.batch import BatchOutcome
from etl.model.result import TransformResult
from etl.sync.processor import Processor
from schemas.operations import Enqueue, Put
from tests.support.assembly import NAME

KEY = "config:api:a"
OTHER = "config:api:b"
LOCK = "lock:content_generation:c"
QUEUE = "queue:ai_generation:alta"
LATE = int(DEADLINE_SECONDS * 1_000_000)
KNOWN = (NAME, "second")


class Documents:
    """A fake collection: the current version of each document."""

    def __init__(self) -> None:
        self.held: dict[str, TransformResult] = {}
        self.reads: list[set[str]] = []
        self.after_read: Callable[[], None] = lambda: None

    def put(self, *versions: TransformResult) -> list[TransformResult]:
        """Store these versions, and return them as a page."""
        self.held |= {version.document: version for version in versions}
        return [*versions]

    def reread(self, names: Collection[str]) -> list[TransformResult]:
        """The current versions of these documents, in order."""
        self.reads.append({*names})
        known = (name for name in names if name.partition(" ")[0] in KNOWN)
        found = [self.held[name] for name in known if name in self.held]
        self.after_read()
        return sorted(found, key=lambda one: (one.position.order(), one.document))


def process(
    processor: Processor, *page: TransformResult, read_at: int | None = None, **flags: Any
) -> BatchOutcome:
    """Write a page, by default one that is read now, with done marks for all documents."""
    return processor.process(page, read_at or processor.now(), **{"remember_from": 0} | flags)


def status_put(text: str, key: str = KEY) -> Put:
    """A write of a hash with this status."""
    return Put("config:api", key, {"status": text})


def status(client: redis.Redis, key: str = KEY) -> Any:
    """The status in the key."""
    return client.hget(key, "status")


def generation_request(item: str, queue: str = QUEUE) -> Enqueue:
    """A generation request."""
    return Enqueue("queue:ai_generation", queue, item)
