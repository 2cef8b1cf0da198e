"""Ranges in ascending order, by this process or by others: each once, whatever becomes of the others."""

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
    """Works on a range in steps of `step` milliseconds, and notes what was done."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.done: list[int] = []

    def __call__(self, task: Task) -> RangeProgress:
        """One step."""
        begin, end = task.scan_range.after.ms or 0, task.scan_range.end.ms or 0
        self.done += range(begin, min(begin + self.step, end))
        cursor = place(begin + self.step) if begin + self.step < end else None
        return RangeProgress(self.step, BatchOutcome(), cursor)


class Broken(Executor):
    """Fails the first calls as a pool does whose process has died, and takes no more then."""

    def __init__(self, calls: int) -> None:
        self._left = calls

    def submit(self, *_: Any, **__: Any) -> "Future[Any]":
        """One that fails."""
        self._left -= 1
        if self._left < 0:
            raise BrokenExecutor
        failed: Future[Any] = Future()
        failed.set_exception(BrokenExecutor())
        return failed


def run(work: Callable[[Task], RangeProgress], workers: Workers | None) -> list[Progressed]:
    """All ranges."""
    return [*run_ranges(RANGES, 1_000, work, workers, 0)]


@pytest.mark.parametrize("step", [3, 10])
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_every_range_is_worked_on_once(step: int, workers: int) -> None:
    """To its end, by this process or by others."""
    work = Ranges(step)
    with ThreadPoolExecutor(max(1, workers)) as executor:
        run(work, Workers(executor, work, workers) if workers else None)
    assert sorted(work.done) == [*range(100)]


def test_without_workers_ranges_are_read_in_order() -> None:
    """One step after the other; what is told to be done is."""
    work = Ranges(4)
    lowest = [one.lowest for one in run(work, None)]
    assert work.done == [*range(100)]
    assert lowest[:4] == [place(4), place(8), place(10), place(14)]
    assert lowest[-1] is None


def test_the_lowest_cursor_never_passes_a_task_under_way() -> None:
    """A worker that is slow with the first range holds it back, however far the others are."""
    others, slow = threading.Event(), Ranges(10)

    def work(task: Task) -> RangeProgress:
        if task.scan_range == RANGES[0]:
            assert others.wait(10)
        return slow(task)

    with ThreadPoolExecutor(4) as executor:
        told = run_ranges(RANGES, 1_000, slow, Workers(executor, work, 4), 0)
        first = [next(told) for _ in range(len(RANGES) - 1)]
        others.set()
        rest = [*told]
    assert {one.lowest for one in first} == {RANGES[0].after}
    assert [one.lowest for one in rest] == [None]


def test_two_tasks_per_worker_are_under_way() -> None:
    """Twice as many as there are workers: a range that is begun is soon done."""
    submitted: list[Task] = []
    go_on = threading.Event()

    def work(task: Task) -> RangeProgress:
        submitted.append(task)
        assert go_on.wait(10)
        return RangeProgress(0, BatchOutcome(), None)

    class Noting(ThreadPoolExecutor):
        count = 0

        def submit(self, *arguments: Any, **more: Any) -> Any:
            Noting.count += 1
            if Noting.count == 5:
                go_on.set()
            return super().submit(*arguments, **more)

    with Noting(2) as executor:
        told = run_ranges(RANGES, 1_000, work, Workers(executor, work, 2), 0)
        timer = threading.Timer(0.3, go_on.set)
        timer.start()
        next(told)
        timer.join()
        assert Noting.count <= 4 + 2
        list(told)


@pytest.mark.parametrize("calls", [0, 2, 100], ids=["takes none", "takes two", "takes all and fails"])
def test_a_broken_executor_is_replaced_by_this_process(calls: int, caplog: pytest.LogCaptureFixture) -> None:
    """The ranges are worked on here instead, each once and in order; the log says so, once."""
    work = Ranges(5)
    run(work, Workers(Broken(calls), work, 2))
    assert work.done == [*range(100)]
    assert caplog.text.count("going on without workers") == 1


def test_an_executor_that_was_shut_down_is_replaced_by_this_process() -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    work = Ranges(10)
    run(work, Workers(executor, work, 1))
    assert work.done == [*range(100)]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_is_raised_once_no_task_is_under_way(workers: int) -> None:
    """What went wrong in a task is raised where its progress is asked for."""
    work = Ranges(10)

    def failing(task: Task) -> RangeProgress:
        if task.scan_range == RANGES[2]:
            raise TransientError("away")
        return work(task)

    with ThreadPoolExecutor(2) as executor, pytest.raises(TransientError, match="away"):
        run(failing, Workers(executor, failing, workers) if workers else None)
    assert {0, 10} <= {*work.done}


def test_a_range_is_cut_before_dates() -> None:
    """At those within it, each once: documents of one date are never in two ranges."""
    cuts = [Position(DatetimeMS(ms), "x") for ms in (5, 5, 30, 20)] + [Position(None, 1)]
    assert split(ScanRange(place(10), LAST), cuts) == [
        ScanRange(place(10), place(20)),
        ScanRange(place(20), place(30)),
        ScanRange(place(30), LAST),
    ]
    assert split(ScanRange(FIRST, LAST), []) == [ScanRange(FIRST, LAST)]
