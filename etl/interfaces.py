"""What the runs ask of the four stages: their shapes, without MongoDB or Redis.

The implementations say in their own docstrings what they do and raise; `etl.container` hands them to the runs.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from etl.model.batch import BatchOutcome
from etl.model.index import Index
from etl.model.report import Report
from etl.model.result import TransformResult
from etl.model.scan import Origin, Scan, ScanRange
from etl.model.state import DeadLetter, State
from etl.retry import Retry
from schemas.position import Position


class Page(Protocol):
    """Raw documents in index order, where to read on, and whether to."""

    @property
    def documents(self) -> list[bytes]:
        """The documents, in order."""
        ...

    @property
    def last(self) -> Position | None:
        """Where to read on; None where no document of the page says so."""
        ...

    @property
    def more(self) -> bool:
        """Whether there may be more."""
        ...


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

    def of_kind(self, criteria: Mapping[str, Any], limit: int) -> Iterator[list[bytes]]:
        """All documents that match, the newest first, a page at a time."""
        ...

    def count(self) -> int:
        """About how many documents the collection has."""
        ...

    def cuts(self, count: int) -> list[Position]:
        """Positions that cut the collection into ranges, ascending."""
        ...

    def identity(self) -> str | None:
        """The UUID of the collection; None where there is none, or it may not be asked for."""
        ...

    def unreachable(self) -> int:
        """How many documents no delta can reach."""
        ...

    def sample(self, count: int) -> list[str]:
        """The `_id`s of about so many documents."""
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
        trust: bool = True,
    ) -> BatchOutcome:
        """Write the documents of a page."""
        ...

    def read(self, ids: Sequence[str], /) -> tuple[int, list[TransformResult]]:
        """The clock of Redis, and then these documents as they are now."""
        ...

    def sweep(self, queue: str, cursor: str, /) -> str:
        """Forget some requests that guard against nothing any more; returns the next cursor."""
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
        """All that is known of the collection."""
        ...

    def identify(self, token: str, origin: Origin, /) -> None:
        """Record which documents the checkpoint is about."""
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
        """Record one batch that Redis has taken; returns its dead letters."""
        ...

    def finish(
        self, token: str, scan: Scan, position: Position | None, report: Report, sweeps: Mapping[str, str], /
    ) -> None:
        """End the cycle and publish the watermark."""
        ...

    def end(self, token: str, scan: Scan, report: Report, /) -> None:
        """End a backfill."""
        ...

    def record(self, report: Report, began: int, /) -> None:
        """Keep the report of a run that did not finish; `began` in milliseconds since the epoch."""
        ...


class RangeProgress(NamedTuple):
    """What a task did with a range of the collection."""

    documents: int
    """How many it read."""
    outcome: BatchOutcome
    cursor: Position | None
    """Where to go on; None where the range is done."""


class Task(NamedTuple):
    """One range, for a while."""

    scan_range: ScanRange
    present: int
    """MongoDB's clock when the scan began, in milliseconds since the epoch."""
    seconds: float
    """It ends with the page under way after this time; 0 for one page."""


Process = Callable[[Sequence[TransformResult], int], BatchOutcome]
"""Writes the results of documents, in ascending order, that were read after that moment of Redis' clock."""

Work = Callable[[Task], RangeProgress]

Executors = Callable[[], AbstractContextManager[tuple[Executor, int] | None]]
"""Starts an executor for the length of a block, and says how many workers it has; None where there can be none."""


class Workers(NamedTuple):
    """Other processes that work on tasks."""

    executor: Executor
    work: Work
    """The work as the executor takes it: picklable."""
    number: int


@dataclass(frozen=True, slots=True)
class Stages:
    """The four stages of one collection; and how to wait, to stop and to share the work."""

    reader: Reader
    transform: Callable[[Sequence[bytes]], list[TransformResult]]
    processor: Processor
    store: CheckpointStore
    start_workers: Callable[[Scan], AbstractContextManager[Workers | None]]
    """Starts workers for a scan that takes long; None where this process does all of it."""
    retry: Retry
    stop: threading.Event
    page_size: int
    source: str
    """The database, the collection and the timestamp field, for people."""
