"""What the heart asks of the four stages: their shapes, without MongoDB or Redis.

The real ones say in their own docstrings what they do and raise; `app` hands them to the heart.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from etl.backfill import pipeline
from etl.backfill.pipeline import Pipeline
from etl.model.outcome import Outcome
from etl.model.report import Report
from etl.model.state import DeadLetter, Reached, State
from etl.mongo.indexes import Index
from etl.retry import Retry
from etl.sync.batch import Decision, Sight
from etl.sync.planner import Scan
from etl.transform.sheet import Sheet
from schemas.operations import Reject
from schemas.position import Position


class Page(pipeline.Page, Protocol):
    """Raw documents in order, where to read on, and whether to."""

    @property
    def more(self) -> bool:
        """Whether there may be more."""
        ...


class Source(Protocol):
    """Stage 1 as the heart needs it: see `etl.mongo.reader.Source`."""

    def prepare(self) -> bool:
        """Look for the index; says whether it is there."""
        ...

    @property
    def index(self) -> Index:
        """The index that `prepare` has found, or why there is none."""
        ...

    def clock(self) -> int:
        """The server's clock, in milliseconds since the epoch."""
        ...

    def page(self, after: Position, end: Position, limit: int) -> Page:
        """The next documents after one position and before another."""
        ...

    def fetch(self, ids: Sequence[Any]) -> list[bytes]:
        """The documents with these `_id`s that exist, in order."""
        ...

    def unreachable(self) -> int:
        """How many documents no delta can reach."""
        ...


class Written(Protocol):
    """What came of a batch in the cache."""

    @property
    def pushed(self) -> int:
        """How many requests were pushed."""
        ...

    @property
    def refused(self) -> list[tuple[Outcome, Reject]]:
        """Outcomes Redis had no place for."""
        ...


class Cache(Protocol):
    """Stage 3 as the heart needs it: see `etl.cache.cache.Cache`."""

    def look(self, outcomes: Sequence[Outcome], token: str, since: int | None, *, has_claims: bool) -> Sight:
        """What Redis holds about a batch that is about to be written."""
        ...

    def held(self, locks: Sequence[str]) -> frozenset[str]:
        """Which of these locks exist."""
        ...

    def rivals(self, keys: Sequence[str]) -> list[str]:
        """The `_id`s of documents that claimed one of these keys and were not the newest to do so."""
        ...

    def write(self, decision: Decision, queues: frozenset[str]) -> Written:
        """Carry out a decision in one fenced transaction."""
        ...


class CheckpointStore(Protocol):
    """Stage 4 as the heart needs it: see `etl.checkpoint.checkpoint.CheckpointStore`."""

    def load(self) -> State:
        """All that is known of the collection."""
        ...

    def known_dead(self, outcomes: Sequence[Outcome]) -> Mapping[str, DeadLetter]:
        """The dead letters these documents already are, by `_id`."""
        ...

    def advance(
        self, token: str, state: State, reached: Reached, decision: Decision, letters: Sequence[DeadLetter]
    ) -> None:
        """Record one batch that Redis has taken."""
        ...

    def finish(self, token: str, reached: Reached, forget: int, report: Report) -> None:
        """End the cycle and publish the watermark."""
        ...

    def end(self, token: str, scan: Scan, report: Report) -> None:
        """End a backfill."""
        ...


class Transform(Protocol):
    """Stage 2 as the heart needs it: see `etl.transform.transform.Transform`."""

    def __call__(self, documents: Sequence[bytes]) -> Sheet:
        """The outcome of each document, in the same order."""
        ...


class Stages(NamedTuple):
    """The four stages of one collection, how pages go through them, and how to wait and to stop."""

    source: Source
    transform: Transform
    cache: Cache
    checkpoint: CheckpointStore
    inline: Pipeline[Sheet]
    """The transform of the few pages of a delta."""
    crew: Pipeline[Sheet]
    """That of the many pages of a cold start."""
    retry: Retry
    stop: threading.Event
