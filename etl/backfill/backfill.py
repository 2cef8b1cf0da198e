"""Backfill: every document of a collection into the caches, beside the cycles.

It has a lease and a checkpoint of its own, so it resumes where it was cut and moves no watermark. The cycle that
follows reads again all that changed since it began.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from etl.backfill.coordinator import run_scan
from etl.checkpoint.origin import check_origin, load_state
from etl.errors import Misconfigured
from etl.interfaces import Executors, Process, Stages
from etl.model.batch import BatchOutcome, Rejected
from etl.model.moments import moment_text
from etl.model.report import Progress, Report
from etl.model.result import TransformResult
from etl.model.scan import Backfilled, Bounds, Checkpoint, Origin, Scan, ServerTimes
from etl.model.state import DeadLetter, State, dead_letter
from schemas.operations import Put
from schemas.position import FIRST, LAST, at


@dataclass(frozen=True, slots=True)
class BackfillOrder:
    """A backfill as a person asks for it."""

    bounds: Bounds = field(default_factory=Bounds)
    executors: Executors | None = None
    """What does the work; by default as many processes as the settings say."""
    rate: float | None = None
    """At most so many documents a second."""
    restart: bool = False
    """Whether to begin anew where an earlier one was cut."""
    dry_run: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether it leaves nothing out."""
        return self.bounds == Bounds()


def plan_backfill(checkpoint: Checkpoint | None, now: ServerTimes, bounds: Bounds) -> Scan:
    """The scan of a backfill: where the one before was cut, or from the very beginning.

    It keeps the clocks of its beginning, for the cycle that catches up with what changed since.

    Raises:
        Misconfigured: the one before was cut, and had other bounds.
    """
    begin = FIRST if bounds.since is None else at(bounds.since)
    end = LAST if bounds.until is None else at(bounds.until)
    cut = checkpoint.scan if checkpoint else None
    if cut is None:
        return Scan("backfill", now, begin, end, begin)
    if (cut.begin, cut.end) != (begin, end):
        raise Misconfigured("the backfill that was cut short had other bounds: give those, or --restart")
    return cut


def run_backfill(
    stages: Stages, process: Process, order: BackfillOrder, token: str, report: Report, progress: Progress
) -> tuple[Scan, Backfilled]:
    """Read and write all of it, under the backfill's lease whose fencing token is given.

    Raises:
        EtlError: it ended early; the next one goes on where it was.
    """
    began = time.monotonic()
    state, origin = load_state(stages, token)
    now = ServerTimes(stages.retry(stages.reader.clock), state.now)
    scan = plan_backfill(None if order.restart else state.checkpoint, now, order.bounds)
    report.before = scan.done
    stood, clock = scan.cursor, scan.clocks.mongo
    newest = stood if stood != scan.begin and (stood.ms or clock) < clock else None

    def told(report: Report) -> None:
        report.sync_duration_ms = round((time.monotonic() - began) * 1000)
        progress(report)

    scan, newest = run_scan(stages, scan, newest, token, report, told, process)
    check_origin(stages, origin)
    return scan, Backfilled(scan.clocks, newest)


class DryProcessor:
    """Counts what would be written, and writes nothing."""

    def now(self) -> int:
        """A clock that is never compared."""
        return 0

    def process(
        self, page: Sequence[TransformResult], _: int, *, remember_from: int | None, trust: bool = True
    ) -> BatchOutcome:
        """The outcome if no other document claimed the same keys, and no lock existed."""
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

    def read(self, _: Sequence[str]) -> tuple[int, list[TransformResult]]:
        """No document is read again."""
        return 0, []

    def pass_over(self, _: Sequence[TransformResult], __: int) -> None:
        """Nothing is marked."""

    def sweep(self, _: str, __: str) -> str:
        """No request was made."""
        return "0"

    def held(self, _: Sequence[str]) -> frozenset[str]:
        """No lock is looked at."""
        return frozenset()


class DryStore:
    """Remembers nothing."""

    def load(self) -> State:
        """A collection of which nothing is known."""
        return State()

    def identify(self, _: str, __: Origin) -> None:
        """Nothing is recorded."""

    def waiting(self) -> frozenset[str]:
        """No document waits."""
        return frozenset()

    def advance(
        self, _: str, scan: Scan, __: object, outcome: BatchOutcome, *, retried: bool = False
    ) -> list[DeadLetter]:
        """The dead letters that there would be."""
        now = moment_text(scan.clocks.mongo)
        return [dead_letter(one, now, None) for one in outcome.rejected]

    def finish(self, _: str, __: Scan, ___: object, ____: Report, _____: object) -> None:
        """Nothing is published."""

    def end(self, _: str, __: Scan, ___: Report) -> None:
        """Nothing is recorded."""

    def record(self, _: Report, __: int) -> None:
        """Nothing is kept."""
