"""Backfill: writes every document of a collection to the caches, beside the cycles.

It has a lease and a checkpoint of its own, so it can be resumed and does not move the watermark. The catch-up cycle at
its end reads everything that changed since it began.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from etl.backfill.coordinator import run_scan
from etl.checkpoint.origin import check_origin, load_state
from etl.errors import ConfigurationError
from etl.interfaces import Executors, Process, Reread, Stages
from etl.model.batch import BatchOutcome, Rejected
from etl.model.report import ProgressCallback, Report
from etl.model.result import TransformResult
from etl.model.scan import Backfilled, Bounds, Checkpoint, Origin, Scan, ServerTimes
from etl.model.state import DeadLetter, State, dead_letter
from etl.model.times import iso_utc
from schemas.operations import Put
from schemas.position import FIRST, LAST, at


@dataclass(frozen=True, slots=True)
class BackfillOrder:
    """The options of a backfill."""

    bounds: Bounds = field(default_factory=Bounds)
    executors: Executors | None = None
    """Where the workers run; by default in processes, as many as the settings say."""
    rate: float | None = None
    """Maximum of documents per second."""
    restart: bool = False
    """Start anew instead of resuming an interrupted one."""
    dry_run: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether it covers the whole collection."""
        return self.bounds == Bounds()


def plan_backfill(checkpoint: Checkpoint | None, now: ServerTimes, bounds: Bounds) -> Scan:
    """The scan of a backfill: the interrupted one, or a new one.

    An interrupted scan keeps the clocks of its start, for the catch-up cycle.

    Raises:
        ConfigurationError: the interrupted one has other bounds.
    """
    begin = FIRST if bounds.since is None else at(bounds.since)
    end = LAST if bounds.until is None else at(bounds.until)
    interrupted = checkpoint.scan if checkpoint else None
    if interrupted is None:
        return Scan("backfill", now, begin, end, begin)
    if (interrupted.begin, interrupted.end) != (begin, end):
        raise ConfigurationError("the interrupted backfill had other bounds: give those, or --restart")
    return interrupted


def run_backfill(
    stages: Stages,
    process: Process,
    order: BackfillOrder,
    token: str,
    report: Report,
    progress: ProgressCallback,
) -> tuple[Scan, Backfilled]:
    """Read and write the collection.

    Args:
        stages: of the collection.
        process: writes one batch.
        order: the options of the backfill.
        token: the fencing token of the backfill's lease.
        report: is filled in.
        progress: is called after each task.

    Raises:
        EtlError: it ended early; the next one resumes.
    """
    began = time.monotonic()
    state, origin = load_state(stages, token)
    if not state.primaries:
        stages.store.remember_primaries(token)
    now = ServerTimes(stages.retry(stages.reader.clock), state.now)
    scan = plan_backfill(None if order.restart else state.checkpoint, now, order.bounds)
    report.before = scan.done
    cursor, present = scan.cursor, scan.clocks.mongo
    newest = cursor if cursor != scan.begin and (cursor.ms or present) < present else None

    def report_progress(report: Report) -> None:
        report.sync_duration_ms = round((time.monotonic() - began) * 1000)
        progress(report)

    scan, newest = run_scan(stages, scan, newest, token, report, report_progress, process)
    check_origin(stages, origin)
    return scan, Backfilled(scan.clocks, newest)


class DryProcessor:
    """Counts what would be written, and writes nothing."""

    def now(self) -> int:
        """No clock: nothing is compared."""
        return 0

    def process(
        self, page: Sequence[TransformResult], _: int, *, remember_from: int | None, skip_done: bool = True
    ) -> BatchOutcome:
        """The outcome, assuming no other claims and no locks."""
        valid = [result for result in page if result.reject is None]
        filling = [result for result in valid if any(type(write) is Put for write in result.writes)]
        return BatchOutcome(
            processed=len(valid),
            written=len(filling),
            evicted=sum(bool(result.writes) for result in valid) - len(filling),
            enqueued=sum(len(result.pushes) for result in valid),
            entries=Counter(w.family for result in filling for w in result.writes if type(w) is Put),
            rejected=[Rejected(result.id, result.reject) for result in page if result.reject is not None],
        )

    def read(self, _: Sequence[str], __: Reread | None = None) -> tuple[int, list[TransformResult]]:
        """No document is read again."""
        return 0, []

    def pass_over(self, _: Sequence[TransformResult], __: int) -> None:
        """Nothing is marked."""

    def sweep(self, _: str, __: str) -> str:
        """No request was made."""
        return "0"

    def held(self, _: Sequence[str]) -> frozenset[str]:
        """No lock is checked."""
        return frozenset()


class DryStore:
    """Stores nothing."""

    def load(self) -> State:
        """An empty state."""
        return State()

    def identify(self, _: str, __: Origin) -> None:
        """Nothing is recorded."""

    def remember_primaries(self, _: str) -> frozenset[str]:
        """Nothing is recorded."""
        return frozenset()

    def waiting(self) -> frozenset[str]:
        """No document waits."""
        return frozenset()

    def advance(
        self, _: str, scan: Scan, __: object, outcome: BatchOutcome, *, retried: bool = False
    ) -> list[DeadLetter]:
        """The dead letters of a real backfill."""
        now = iso_utc(scan.clocks.mongo)
        return [dead_letter(one, now, None) for one in outcome.rejected]

    def finish(self, _: str, __: Scan, ___: object, ____: Report, _____: object, ______: object) -> None:
        """Nothing is published."""

    def end(self, _: str, __: Scan, ___: Report, ____: object) -> None:
        """Nothing is recorded."""

    def record(self, _: Report, __: int) -> None:
        """Nothing is kept."""
