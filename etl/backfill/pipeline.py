"""Pages read ahead and worked on by others, and given back in order: the shape of a backfill.

What is made of a page is up to the `Work`: a sheet for a cycle, readings for a verification. One thread
reads pages and hands them to an executor; whoever iterates gets what became of each, in the order of
the pages. What is in flight is bounded by number and by weight, so that memory stays flat however
slow the writer and however large the documents.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import AbstractContextManager, closing
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from schemas.position import Position

WEIGHT: Final = 16 * 1024 * 1024
"""So many bytes of documents are in flight at most, or one page where that weighs more."""

Made = TypeVar("Made")
"""What a page becomes."""

_log = logging.getLogger("etl.pipeline")


class Page(Protocol):
    """Raw documents in order, and where to read on."""

    @property
    def documents(self) -> list[bytes]:
        """The documents, in order."""
        ...

    @property
    def last(self) -> Position | None:
        """Where to read on, None where no document of the page says so."""
        ...


class Batch(NamedTuple, Generic[Made]):
    """What became of one page, and where to read on."""

    made: Made
    last: Position | None


Pipeline = Callable[[Iterable[Page]], Iterator[Batch[Made]]]
"""What makes batches of pages, in order."""


class Work(NamedTuple, Generic[Made]):
    """What is made of the documents of a page: by this process, or by one that sends it back."""

    local: Callable[[Sequence[bytes]], Made]
    remote: Callable[[Sequence[bytes]], Any]
    """The same in a form that travels; picklable itself."""
    unpack: Callable[[Any], Made]
    """Makes what `local` returns of what `remote` does."""


def inline(local: Callable[[Sequence[bytes]], Made], pages: Iterable[Page]) -> Iterator[Batch[Made]]:
    """One page after the other, by who asks: right for the few pages of a delta."""
    for page in pages:
        yield Batch(local(page.documents), page.last)


Executors = Callable[[], AbstractContextManager[tuple[Executor, int]]]
"""Starts an executor for the length of a block, and says how many workers it has."""


class _Job(NamedTuple):
    page: Page
    future: "Future[Any] | None"
    """None where the executor takes no more."""


class Pool(Generic[Made]):
    """Has an executor work on pages; used for one run of pages.

    Args:
        executor: any `concurrent.futures.Executor`. Not shut down here.
        work: done there, and in this process should the executor break.
        in_flight: how many pages are read ahead at most.
    """

    def __init__(self, executor: Executor, work: Work[Made], in_flight: int) -> None:
        self._executor = executor
        self._work = work
        self._in_flight = in_flight
        self._told = False

    def __call__(self, pages: Iterable[Page]) -> Iterator[Batch[Made]]:
        """What becomes of each page, in order; raises what reading a page raised, in its place."""
        with closing(_ReadAhead(pages, self._submit, self._in_flight)) as jobs:
            for job in jobs:
                yield Batch(self._made(job), job.page.last)

    def _submit(self, page: Page) -> _Job:
        try:
            return _Job(page, self._executor.submit(self._work.remote, page.documents))
        except (BrokenExecutor, RuntimeError):
            return _Job(page, None)

    def _made(self, job: _Job) -> Made:
        try:
            if job.future is not None:
                return self._work.unpack(job.future.result())
        except BrokenExecutor:
            pass
        self._tell()
        return self._work.local(job.page.documents)

    def _tell(self) -> None:
        """Say once that the workers are lost: it may show when a page is handed over or when it is due."""
        if not self._told:
            self._told = True
            _log.warning("a worker has died (killed, or out of memory): going on without workers")


class _ReadAhead:
    """A thread that reads pages and submits each, at most so many before they are taken."""

    def __init__(self, pages: Iterable[Page], submit: Callable[[Page], _Job], limit: int) -> None:
        self._pages = pages
        self._submit = submit
        self._limit = limit
        self._jobs: deque[_Job] = deque()
        self._weight = 0
        self._error: BaseException | None = None
        self._ended = self._closed = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="etl-read-ahead", daemon=True)
        self._thread.start()

    def __iter__(self) -> Generator[_Job]:
        while (job := self._next()) is not None:
            yield job

    def close(self) -> None:
        """Stop reading; what is under way is waited for."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._thread.join()

    def _next(self) -> _Job | None:
        with self._change:
            self._change.wait_for(lambda: self._jobs or self._ended)
            if self._jobs:
                job = self._jobs.popleft()
                self._weight -= _weight(job.page)
                self._change.notify_all()
                return job
        if self._error is not None:
            raise self._error
        return None

    def _read(self) -> None:
        try:
            for page in self._pages:
                if not self._put(page):
                    return
        except BaseException as error:  # noqa: BLE001 (told to whoever iterates)
            self._error = error
        finally:
            with self._change:
                self._ended = True
                self._change.notify_all()

    def _put(self, page: Page) -> bool:
        """Submit a page when there is room for it; False when nobody wants any more."""
        weight = _weight(page)
        with self._change:
            self._change.wait_for(lambda: self._closed or self._has_room(weight))
            if self._closed:
                return False
            self._jobs.append(self._submit(page))
            self._weight += weight
            self._change.notify_all()
            return True

    def _has_room(self, weight: int) -> bool:
        return not self._jobs or (len(self._jobs) < self._limit and self._weight + weight <= WEIGHT)


def _weight(page: Page) -> int:
    return sum(map(len, page.documents))
