"""Pages through an executor come back in order, few at a time, whatever becomes of executor and reader."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, NamedTuple, cast

import pytest

from etl.backfill import pipeline
from etl.backfill.pipeline import Batch, Pool, Work, inline
from schemas.position import FIRST, Position
from tests.support.waiting import eventually


class Numbered(NamedTuple):
    """A page whose documents say its number."""

    documents: list[bytes]
    last: Position | None = FIRST


def pages(count: int, weight: int = 1) -> Iterator[Numbered]:
    """So many, each of one document."""
    for number in range(count):
        yield Numbered([str(number).encode().rjust(weight)])


class Counted:
    """Counts how many pages have been read, and whether the reader came to an end."""

    def __init__(self, found: Iterator[Numbered]) -> None:
        self.read = 0
        self.ended = False
        self._found = found

    def __iter__(self) -> Iterator[Numbered]:
        try:
            for page in self._found:
                self.read += 1
                yield page
        finally:
            self.ended = True


class Stuck(Executor):
    """Takes work and does none, until it breaks."""

    def __init__(self) -> None:
        self._futures: list[Future[Any]] = []

    def submit(self, *_: Any, **__: Any) -> "Future[Any]":
        """Not done yet."""
        self._futures.append(Future())
        return self._futures[-1]

    def break_(self) -> None:
        """Fail all."""
        for future in self._futures:
            future.set_exception(BrokenExecutor())


class Broken(Executor):
    """Fails the first so many calls as a pool does whose process has died, and takes no more then."""

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


def numbers(documents: Sequence[bytes]) -> Any:
    """What stands for outcomes: the numbers that the documents say."""
    return [int(document) for document in documents]


def pool(
    executor: Executor, in_flight: int = 3, transform: Callable[[Any], Any] = numbers
) -> Pool[list[int]]:
    """A pool whose outcomes are numbers."""
    return Pool(executor, Work(numbers, transform, lambda given: given), in_flight)


def told(batches: Iterator[Batch[list[int]]]) -> list[int]:
    """The numbers of all of them."""
    return [number for batch in batches for number in batch.made]


@pytest.fixture
def threads() -> Iterator[Executor]:
    """An executor of four."""
    with ThreadPoolExecutor(4) as executor:
        yield executor


def test_inline() -> None:
    """One page after the other, each with where to read on."""
    assert list(inline(numbers, pages(2))) == [Batch([n], FIRST) for n in (0, 1)]


def test_the_order_is_that_of_the_pages(threads: Executor) -> None:
    """Also where a later page is done long before an earlier one."""
    later = threading.Event()

    def transform(documents: Sequence[bytes]) -> Any:
        number = int(documents[0])
        if number == 0:
            assert later.wait(5)
        elif number == 2:
            later.set()
        return [number]

    assert told(pool(threads, transform=transform)(pages(50))) == list(range(50))


def test_what_reading_raised_is_raised_in_its_place(threads: Executor) -> None:
    """After the outcomes of all that was read before."""

    def failing() -> Iterator[Numbered]:
        yield from pages(3)
        raise OSError("away")

    batches = pool(threads)(failing())
    assert [next(batches).made for _ in range(3)] == [[0], [1], [2]]
    with pytest.raises(OSError, match="away"):
        next(batches)


def test_what_the_transform_raised_is_raised_in_its_place(threads: Executor) -> None:
    """A fault in the transform is no reason to lose what came before it."""

    def transform(documents: Sequence[bytes]) -> Any:
        return [1 // (2 - int(documents[0]))]

    batches = pool(threads, transform=transform)(pages(9))
    assert [next(batches), next(batches)]
    with pytest.raises(ZeroDivisionError):
        next(batches)


@pytest.mark.parametrize(
    ("limit", "weight", "in_flight"),
    [(3, 1, 3), (100, pipeline.WEIGHT // 4, 4), (100, pipeline.WEIGHT + 1, 1)],
    ids=["by count", "by bytes", "one that weighs more"],
)
def test_what_is_in_flight_is_bounded(limit: int, weight: int, in_flight: int) -> None:
    """One more has been read, and waits for its place."""
    source = Counted(pages(50, weight))
    stuck = Stuck()
    batches = cast("Any", pool(stuck, limit)(source))
    waiting = threading.Thread(target=lambda: next(batches, None))

    waiting.start()  # it takes the first one, and waits for it

    assert eventually(lambda: source.read == 1 + in_flight + 1)
    assert not eventually(lambda: source.read > 1 + in_flight + 1, seconds=0.2)
    stuck.break_()
    waiting.join()
    batches.close()


def test_nobody_wants_any_more(threads: Executor) -> None:
    """Whoever stops iterating stops the reader, and its thread is gone."""
    source = Counted(pages(1000))
    with closing(cast("Any", pool(threads)(source))) as batches:
        next(batches)

    assert source.read < 10
    assert not [thread for thread in threading.enumerate() if thread.name == "etl-read-ahead"]


@pytest.mark.parametrize("calls", [0, 2, 100], ids=["takes none", "takes two", "takes all and fails"])
def test_a_broken_executor(calls: int, caplog: pytest.LogCaptureFixture) -> None:
    """The pages are transformed here instead, in order and each once; the log says so, once."""
    assert told(pool(Broken(calls))(pages(20))) == list(range(20))
    assert caplog.text.count("going on without workers") == 1


def test_an_executor_that_was_shut_down() -> None:
    """Likewise."""
    executor = ThreadPoolExecutor(1)
    executor.shutdown()

    assert told(pool(executor)(pages(5))) == list(range(5))
