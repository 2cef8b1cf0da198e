"""Ranges are processed in ascending order and once each, by this process or by workers."""

import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS

from etl.backfill.coordinator import Progressed, run_ranges, split
from etl.errors import TransientError
from etl.interfaces import RangeProgress, Task, Workers
from etl.model.batch import BatchOutcome
from etl.model.scan import ScanRange
from schemas.position import FIRST, LAST, Position, at


def place(number: int) -> Position:
    """A position at a date."""
    return at(number)


RANGES = [ScanRange(place(n), place(n + 10)) for n in range(0, 100, 10)]


class Ranges:
    """Works on a range in steps of `step` milliseconds, and records what was done."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.done: list[int] = []

    def __call__(self, task: Task) -> RangeProgress:
        begin, end = task.scan_range.after.ms or 0, task.scan_range.end.ms or 0
        self.done += range(begin, min(begin + self.step, end))
        cursor = place(begin + self.step) if begin + self.step < end else None
        return RangeProgress(self.step, BatchOutcome(), cursor)


class Broken(Executor):
    """Fails the first calls like a pool with a dead process, then refuses further ones."""

    def __init__(self, calls: int) -> None:
        self._left = calls

    def submit(self, *_: Any, **__: Any) -> "Future[Any]":
        self._left -= 1
        if self._left < 0:
            raise BrokenExecutor
        failed: Future[Any] = Future()
        failed.set_exception(BrokenExecutor())
        return failed


def run(work: Callable[[Task], RangeProgress], workers: Workers | None) -> list[Progressed]:
    """Run all ranges."""
    return [*run_ranges(RANGES, 1_000, work, workers, 0)]


@pytest.mark.parametrize("step", [3, 10])
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_every_range_is_processed_once(step: int, workers: int) -> None:
    work = Ranges(step)
    with ThreadPoolExecutor(max(1, workers)) as executor:
        run(work, Workers(executor, work, workers) if workers else None)
    assert sorted(work.done) == [*range(100)]


def test_ranges_are_processed_in_order_without_workers() -> None:
    """The reported lowest cursor is never ahead."""
    work = Ranges(4)
    lowest = [one.lowest for one in run(work, None)]
    assert work.done == [*range(100)]
    assert lowest[:4] == [place(4), place(8), place(10), place(14)]
    assert lowest[-1] is None


def test_lowest_cursor_never_passes_a_running_task() -> None:
    """A slow worker on the first range holds it back."""
    others, slow = threading.Event(), Ranges(10)

    def work(task: Task) -> RangeProgress:
        if task.scan_range == RANGES[0]:
            assert others.wait(10)
        return slow(task)

    with ThreadPoolExecutor(4) as executor:
        progress = run_ranges(RANGES, 1_000, slow, Workers(executor, work, 4), 0)
        first = [next(progress) for _ in range(len(RANGES) - 1)]
        others.set()
        rest = [*progress]
    assert {one.lowest for one in first} == {RANGES[0].after}
    assert [one.lowest for one in rest] == [None]


def test_at_most_two_tasks_per_worker_are_in_flight() -> None:
    """So that a range that was begun is finished soon."""
    submitted: list[Task] = []
    go_on = threading.Event()

    def work(task: Task) -> RangeProgress:
        submitted.append(task)
        assert go_on.wait(10)
        return RangeProgress(0, BatchOutcome(), None)

    class CountingExecutor(ThreadPoolExecutor):
        count = 0

        def submit(self, *arguments: Any, **more: Any) -> Any:
            CountingExecutor.count += 1
            if CountingExecutor.count == 5:
                go_on.set()
            return super().submit(*arguments, **more)

    with CountingExecutor(2) as executor:
        progress = run_ranges(RANGES, 1_000, work, Workers(executor, work, 2), 0)
        timer = threading.Timer(0.3, go_on.set)
        timer.start()
        next(progress)
        timer.join()
        assert CountingExecutor.count <= 4 + 2
        list(progress)


@pytest.mark.parametrize("calls", [0, 2, 100], ids=["takes none", "takes two", "takes all and fails"])
def test_broken_executor_is_replaced_by_this_process(calls: int, caplog: pytest.LogCaptureFixture) -> None:
    """It processes the ranges once each and in order; one line is logged."""
    work = Ranges(5)
    run(work, Workers(Broken(calls), work, 2))
    assert work.done == [*range(100)]
    assert caplog.text.count("going on without workers") == 1


def test_shut_down_executor_is_replaced_by_this_process() -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    work = Ranges(10)
    run(work, Workers(executor, work, 1))
    assert work.done == [*range(100)]


@pytest.mark.parametrize("workers", [0, 2])
def test_error_is_raised_when_no_task_is_running(workers: int) -> None:
    """To the caller who iterates over the progress."""
    work = Ranges(10)

    def failing(task: Task) -> RangeProgress:
        if task.scan_range == RANGES[2]:
            raise TransientError("away")
        return work(task)

    with ThreadPoolExecutor(2) as executor, pytest.raises(TransientError, match="away"):
        run(failing, Workers(executor, failing, workers) if workers else None)
    assert {0, 10} <= {*work.done}


def test_split_cuts_before_dates() -> None:
    """At the dates within the range, once each: documents of one date are never in two ranges."""
    cuts = [Position(DatetimeMS(ms), "x") for ms in (5, 5, 30, 20)] + [Position(None, 1)]
    assert split(ScanRange(place(10), LAST), cuts) == [
        ScanRange(place(10), place(20)),
        ScanRange(place(20), place(30)),
        ScanRange(place(30), LAST),
    ]
    assert split(ScanRange(FIRST, LAST), []) == [ScanRange(FIRST, LAST)]
