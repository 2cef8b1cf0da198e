"""The protocols of the four stages, as runs use them.

The implementations document what they do and raise; `etl.container` passes them to the runs.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from etl.model.batch import BatchOutcome
from etl.model.index import Index
from etl.model.page import Page
from etl.model.report import Report
from etl.model.result import TransformResult
from etl.model.scan import Origin, Scan, ScanRange
from etl.model.state import DeadLetter, State
from etl.retry import Retry
from schemas.position import Position

Reread = Callable[[Collection[str]], list[TransformResult]]
"""The documents of these names that exist, as they are now: read by `_id` from the primary with read concern
linearizable, in ascending order. Those of collections that the settings do not name are left out."""


class Reader(Protocol):
    """Stage 1: see `etl.mongo.reader`."""

    @property
    def index(self) -> Index:
        """The index that `prepare` has found, or why there is none."""
        ...

    def prepare(self) -> bool:
        """Look for the index; says whether it is there."""
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

    def of_kind(self, criteria: Mapping[str, Sequence[Any]], limit: int) -> Iterator[list[bytes]]:
        """All documents whose fields have one of these values each, the newest first, a page at a time."""
        ...

    def count(self) -> int:
        """The approximate number of documents."""
        ...

    def cuts(self, count: int) -> list[Position]:
        """Positions that cut the collection into ranges, ascending."""
        ...

    def identity(self) -> str | None:
        """The UUID of the collection; None if it does not exist or may not be read."""
        ...

    def unreachable(self) -> int:
        """The number of documents without a timestamp."""
        ...

    def sample(self, count: int) -> list[str]:
        """The `_id`s of a random sample."""
        ...


class Processor(Protocol):
    """Stage 3, as runs use it: see `etl.sync.processor`."""

    def now(self) -> int:
        """The clock of Redis in microseconds since the epoch."""
        ...

    def process(
        self,
        page: Sequence[TransformResult],
        read_at: int,
        /,
        *,
        remember_from: int | None,
        skip_done: bool = True,
    ) -> BatchOutcome:
        """Write the documents of a page."""
        ...

    def read(self, ids: Sequence[str], reread: Reread | None = None, /) -> tuple[int, list[TransformResult]]:
        """The clock of Redis, and then these documents as they are now."""
        ...

    def sweep(self, queue: str, cursor: str, /) -> str:
        """Forget some queue requests that are not needed any more; returns the next cursor."""
        ...

    def pass_over(self, page: Sequence[TransformResult], read_at: int, /) -> None:
        """Mark documents as done without writing them."""
        ...

    def held(self, locks: Sequence[str], /) -> frozenset[str]:
        """Which of these locks exist."""
        ...


class CheckpointStore(Protocol):
    """Stage 4: see `etl.checkpoint.checkpoint`."""

    def load(self) -> State:
        """The state of the collection."""
        ...

    def identify(self, token: str, origin: Origin, /) -> None:
        """Record the source of the checkpoint."""
        ...

    def remember_primaries(self, token: str, /) -> frozenset[str]:
        """Record the present primaries of Redis."""
        ...

    def waiting(self) -> frozenset[str]:
        """The `_id`s that are deferred or dead letters."""
        ...

    def advance(
        self,
        token: str,
        scan: Scan,
        position: Position | None,
        outcome: BatchOutcome,
        /,
        *,
        retried: bool = False,
    ) -> list[DeadLetter]:
        """Record one written batch; returns its dead letters."""
        ...

    def finish(
        self,
        token: str,
        scan: Scan,
        position: Position | None,
        report: Report,
        sweeps: Mapping[str, str],
        primaries: frozenset[str],
        /,
    ) -> None:
        """End the cycle and publish the watermark."""
        ...

    def end(self, token: str, scan: Scan, report: Report, primaries: frozenset[str], /) -> None:
        """End a backfill."""
        ...

    def record(self, report: Report, began: int, /) -> None:
        """Keep the report of a run that did not finish; `began` in milliseconds since the epoch."""
        ...


class RangeProgress(NamedTuple):
    """The result of a task."""

    documents: int
    """Documents read."""
    outcome: BatchOutcome
    cursor: Position | None
    """The cursor to continue from; None if the range is done."""


class Task(NamedTuple):
    """One range for a limited time."""

    scan_range: ScanRange
    present: int
    """MongoDB's clock when the scan began, in milliseconds since the epoch."""
    seconds: float
    """Its duration; it ends after the page in progress. 0 for one page."""


Process = Callable[[Sequence[TransformResult], int], BatchOutcome]
"""Writes results, in ascending order, that were read after this time of Redis' clock."""

Work = Callable[[Task], RangeProgress]

Executors = Callable[[], AbstractContextManager[tuple[Executor, int] | None]]
"""Starts an executor for a block, with its number of workers; None if none can be started."""


class Workers(NamedTuple):
    """Worker processes."""

    executor: Executor
    work: Work
    """The work, picklable."""
    number: int


@dataclass(frozen=True, slots=True)
class Stages:
    """The four stages of one collection, with retry, stop event and workers."""

    reader: Reader
    transform: Callable[[Sequence[bytes]], list[TransformResult]]
    processor: Processor
    store: CheckpointStore
    start_workers: Callable[[Scan], AbstractContextManager[Workers | None]]
    """Starts workers for a scan; None if this process does the work."""
    retry: Retry
    stop: threading.Event
    page_size: int
    source: str
    """The database, the collection and the timestamp field, as text."""
