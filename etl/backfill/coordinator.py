"""Works on the ranges of a scan in ascending order, in this process or in workers.

A task is one range for about a second. Its worker reads, transforms and writes; it returns counts and the next cursor.
The checkpoint records the lowest unfinished cursor: a resumed scan reads every unwritten document from there on, so no
older document is applied long after a newer one.
"""

import logging
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import closing
from functools import partial
from heapq import heappop, heappush
from itertools import count, pairwise
from typing import Final, NamedTuple

from etl import logs
from etl.backfill.worker import work
from etl.errors import Interrupted
from etl.interfaces import Process, RangeProgress, Stages, Task, Work, Workers
from etl.model.report import ProgressCallback, Report
from etl.model.scan import Scan, ScanRange, earliest, latest
from etl.model.times import iso_utc
from schemas.ids import readable_id
from schemas.position import Position, at, position_from_text

TASK_SECONDS: Final = 1.0
_MOST_RANGES: Final = 1000
_SIGNAL_SECONDS: Final = 0.5

_log = logging.getLogger("etl.backfill")


class Progressed(NamedTuple):
    """A finished task."""

    progress: RangeProgress
    lowest: Position | None
    """The lowest unfinished cursor; None if all ranges are done."""


def run_scan(
    stages: Stages,
    scan: Scan,
    position: Position | None,
    token: str,
    report: Report,
    progress: ProgressCallback,
    process: Process,
) -> tuple[Scan, Position | None]:
    """Read and write a scan, and record its progress after each task.

    Returns:
        The scan, and the newest position read that was not in the future when the scan began.
    """
    newest = position
    with stages.start_workers(scan) as workers:
        if stages.reader.index.warning is not None:
            _log.warning("%s", stages.reader.index.warning, extra=logs.event("index"))
        cuts = stages.retry(partial(stages.reader.cuts, _MOST_RANGES)) if workers else []
        seconds = 0 if scan.mode == "delta" else TASK_SECONDS
        ranges = split(ScanRange(scan.cursor, scan.end), cuts)
        tasks = run_ranges(ranges, scan.clocks.mongo, partial(work, stages, process), workers, seconds)
        with closing(tasks):
            for done, lowest in tasks:
                scan = scan.moved(lowest or scan.end, done.documents)
                if done.outcome.position:
                    newest = latest(newest, position_from_text(done.outcome.position))
                # Other workers may be further ahead: the watermark must not pass unwritten documents.
                position = (
                    newest if lowest is None or newest is None else latest(position, earliest(newest, lowest))
                )
                # A backfill moves no watermark, and may begin before the end of an earlier one.
                watermark = None if scan.mode == "backfill" else position
                letters = stages.store.advance(token, scan, watermark, done.outcome)
                report.add(done.outcome, letters)
                if newest is not None and newest.ms is not None:
                    report.last_id, report.last_timestamp = readable_id(newest.id), iso_utc(newest.ms)
                progress(report)
                if stages.stop.is_set():
                    raise Interrupted("stopped between two batches; the next run resumes there")
    return scan, newest


def split(scan_range: ScanRange, cuts: Iterable[Position]) -> list[ScanRange]:
    """Split a range before the dates of these positions: documents of one date stay together."""
    after, end = scan_range.after.order(), scan_range.end.order()
    dates = sorted({cut.ms for cut in cuts if cut.ms is not None})
    within = [cut for cut in map(at, dates) if after < cut.order() < end]
    return [ScanRange(*pair) for pair in pairwise([scan_range.after, *within, scan_range.end])]


def run_ranges(
    ranges: Sequence[ScanRange], present: int, local: Work, workers: Workers | None, seconds: float
) -> Generator[Progressed]:
    """Work on ranges, given in ascending order; yield each finished task.

    Args:
        ranges: the ranges to read.
        present: MongoDB's clock when the scan began, in milliseconds since the epoch.
        local: runs a task in this process, if there are no workers or they have died.
        workers: the worker processes, if any.
        seconds: duration of a task; 0 for one page each.

    Raises:
        EtlError: a task failed. Closing the iterator waits for the running tasks.
    """
    numbers = count()
    waiting = [(part.after.order(), next(numbers), part) for part in ranges]  # a heap; the number breaks ties
    running: dict[Future[RangeProgress], ScanRange] = {}
    try:
        while waiting or running:
            while waiting and len(running) < (2 * workers.number if workers else 1):
                _, _, scan_range = heappop(waiting)
                running[_submit(Task(scan_range, present, seconds), local, workers)] = scan_range
            # With a time limit: a signal that another thread receives does not end a wait.
            for future in wait(running, _SIGNAL_SECONDS, FIRST_COMPLETED).done:
                scan_range = running.pop(future)
                if isinstance(future.exception(), BrokenExecutor):
                    if workers is not None:
                        workers = None
                        _log.warning("a worker has died (killed, or out of memory): going on without workers")
                    heappush(waiting, (scan_range.after.order(), next(numbers), scan_range))
                    continue
                progress = future.result()
                if progress.cursor is not None:
                    rest = ScanRange(progress.cursor, scan_range.end)
                    heappush(waiting, (rest.after.order(), next(numbers), rest))
                unfinished = [*(part for _, _, part in waiting), *running.values()]
                lowest = min((part.after for part in unfinished), key=Position.order, default=None)
                yield Progressed(progress, lowest)
    finally:
        wait(running)


def _submit(task: Task, local: Work, workers: Workers | None) -> Future[RangeProgress]:
    try:
        if workers is not None:
            return workers.executor.submit(workers.work, task)
    except (BrokenExecutor, RuntimeError) as error:
        failed: Future[RangeProgress] = Future()
        failed.set_exception(error if isinstance(error, BrokenExecutor) else BrokenExecutor(str(error)))
        return failed
    done: Future[RangeProgress] = Future()
    try:
        done.set_result(local(task))
    except Exception as error:  # noqa: BLE001 (raised by `Future.result`)
        done.set_exception(error)
    return done
