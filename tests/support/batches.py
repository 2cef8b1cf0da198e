"""Documents, operations and a processor for tests of single batches."""

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
    """The current version of each document, as reading it again gives it."""

    def __init__(self) -> None:
        self.held: dict[str, TransformResult] = {}
        self.reads: list[set[str]] = []
        self.after_read: Callable[[], None] = lambda: None

    def put(self, *versions: TransformResult) -> list[TransformResult]:
        """Write these versions, and read them as a page."""
        self.held |= {version.document: version for version in versions}
        return [*versions]

    def reread(self, names: Collection[str]) -> list[TransformResult]:
        """Those of these documents that there are, in order."""
        self.reads.append({*names})
        known = (name for name in names if name.partition(" ")[0] in KNOWN)
        found = [self.held[name] for name in known if name in self.held]
        self.after_read()
        return sorted(found, key=lambda one: (one.position.order(), one.document))


def process(
    processor: Processor, *page: TransformResult, read_at: int | None = None, **flags: Any
) -> BatchOutcome:
    """Write a page, by default one that is read now and of documents that a delta meets again."""
    return processor.process(page, read_at or processor.now(), **{"remember_from": 0} | flags)


def says(text: str, key: str = KEY) -> Put:
    """A hash that tells what it is of."""
    return Put("config:api", key, {"status": text})


def status(client: redis.Redis, key: str = KEY) -> Any:
    """What the key says."""
    return client.hget(key, "status")


def asks(item: str, queue: str = QUEUE) -> Enqueue:
    """A request."""
    return Enqueue("queue:ai_generation", queue, item)
