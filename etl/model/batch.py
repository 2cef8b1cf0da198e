"""The outcome of a batch of documents; text and numbers only, because workers send it to the coordinator."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.operations import Reject


class Rejected(NamedTuple):
    """A document that cannot be applied."""

    id: str
    """Its `_id` as canonical Extended JSON."""
    reject: Reject
    version: str = ""
    """The timestamp of the version that was refused."""


class Deferred(NamedTuple):
    """A document that waits for a lock."""

    id: str
    lock: str
    """The key of the lock."""


@dataclass(slots=True)
class BatchOutcome:
    """The counts of one batch, in documents except for `entries` and `enqueued`."""

    processed: int = 0
    """Documents applied: not those skipped as done, deferred or rejected."""
    written: int = 0
    """Those that fill a key."""
    evicted: int = 0
    """Those that only remove keys."""
    enqueued: int = 0
    """Requests pushed."""
    entries: Counter[str] = field(default_factory=Counter)
    """Keys filled, by family."""
    rejected: list[Rejected] = field(default_factory=list)
    deferred: list[Deferred] = field(default_factory=list)
    handled: list[str] = field(default_factory=list)
    """`_id`s of documents that are neither deferred nor rejected, also deleted ones."""
    queues: set[str] = field(default_factory=set)
    """Keys of the queues that requests were pushed to."""
    position: str | None = None
    """The newest position read that is not in the future, as `Position.text`."""
    incomplete: int = 0
    """Keys removed although older documents may claim them: a reconciliation is due."""
