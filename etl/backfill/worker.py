"""A task of a cycle or a backfill: reads, transforms and writes one range."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from queue import Queue
from typing import TypeVar

from etl.interfaces import Process, RangeProgress, Stages, Task
from etl.model.batch import BatchOutcome
from etl.model.result import TransformResult
from etl.mongo.pages import pages

T = TypeVar("T")


def work(stages: Stages, process: Process, task: Task) -> RangeProgress:
    """Work on a range for a limited time.

    Raises:
        EtlError: a server does not answer, or refuses.
    """
    end = time.monotonic() + task.seconds
    waiting = stages.store.waiting()
    documents, outcomes, cursor = 0, [], None
    clock, retry = stages.processor.now, stages.retry
    read = pages(stages.reader, task.scan_range, stages.page_size, task.present, clock, retry)
    found = ((page, stages.transform(page.documents)) for page in read)
    for page, results in read_ahead(found) if task.seconds else found:
        # A page without the index has 10,000 documents: a stop waits for a part of it only.
        for start in range(0, max(len(results), 1), stages.page_size):
            part = results[start : start + stages.page_size]
            outcome = process(part, page.read_at)
            outcome.position = newest_position(part, task.present)
            outcome.handled = [name for name in outcome.handled if name in waiting]
            outcomes.append(outcome)
            documents += len(part)
            if stages.stop.is_set() and start + len(part) < len(results):
                return RangeProgress(documents, merged(outcomes), part[-1].position)
        cursor = page.last if page.more else None
        if cursor is None or time.monotonic() >= end or stages.stop.is_set():
            break
    return RangeProgress(documents, merged(outcomes), cursor)


def newest_position(results: Sequence[TransformResult], present: int) -> str | None:
    """The last position with a date not after `present` (milliseconds since the epoch)."""
    for result in reversed(results):
        if result.ms is not None and result.ms <= present:
            return f"{result.timestamp} {result.id}"
    return None


def merged(outcomes: Sequence[BatchOutcome]) -> BatchOutcome:
    """The sum of several batches, in the order of their documents."""
    return BatchOutcome(
        processed=sum(one.processed for one in outcomes),
        written=sum(one.written for one in outcomes),
        evicted=sum(one.evicted for one in outcomes),
        enqueued=sum(one.enqueued for one in outcomes),
        entries=sum((one.entries for one in outcomes), Counter()),
        rejected=[rejected for one in outcomes for rejected in one.rejected],
        deferred=[deferred for one in outcomes for deferred in one.deferred],
        handled=[handled for one in outcomes for handled in one.handled],
        queues={queue for one in outcomes for queue in one.queues},
        position=next((one.position for one in reversed(outcomes) if one.position is not None), None),
        incomplete=sum(one.incomplete for one in outcomes),
    )


def read_ahead(found: Iterator[T]) -> Iterator[T]:
    """The same pages, each made by a thread while the previous one is written."""
    queue: Queue[T | BaseException | None] = Queue(1)
    closed = threading.Event()

    def read() -> None:
        try:
            for page in found:
                queue.put(page)
                if closed.is_set():
                    return
            queue.put(None)
        except BaseException as error:  # noqa: BLE001 (raised again where the pages are used)
            queue.put(error)

    thread = threading.Thread(target=read, name="etl-read-ahead", daemon=True)
    thread.start()
    try:
        while (page := queue.get()) is not None:
            if isinstance(page, BaseException):
                raise page
            yield page
    finally:
        closed.set()
        while thread.is_alive():
            if not queue.empty():
                queue.get_nowait()
            thread.join(0.01)
