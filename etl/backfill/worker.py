"""A task of a cycle or a backfill: reads, transforms and writes one range."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
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
    transformed = ((read_at, page, stages.transform(page.documents)) for read_at, page in read)
    for read_at, page, results in read_ahead(transformed) if task.seconds else transformed:
        # A page without the index has 10,000 documents: written in parts, so that a stop does not wait for all.
        for start in range(0, max(len(results), 1), stages.page_size):
            part = results[start : start + stages.page_size]
            outcome = process(part, read_at)
            handled = [name for name in outcome.handled if name in waiting]
            position = newest_position(part, task.present)
            outcomes.append(replace(outcome, handled=handled, position=position))
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
    """The sum of the outcomes of several batches, given in the order of their documents."""
    return BatchOutcome(
        processed=sum(outcome.processed for outcome in outcomes),
        written=sum(outcome.written for outcome in outcomes),
        evicted=sum(outcome.evicted for outcome in outcomes),
        enqueued=sum(outcome.enqueued for outcome in outcomes),
        entries=sum((outcome.entries for outcome in outcomes), Counter()),
        rejected=[rejected for outcome in outcomes for rejected in outcome.rejected],
        deferred=[deferred for outcome in outcomes for deferred in outcome.deferred],
        handled=[handled for outcome in outcomes for handled in outcome.handled],
        queues={queue for outcome in outcomes for queue in outcome.queues},
        position=next(
            (outcome.position for outcome in reversed(outcomes) if outcome.position is not None), None
        ),
        incomplete=sum(outcome.incomplete for outcome in outcomes),
    )


def read_ahead(source: Iterator[T]) -> Iterator[T]:
    """The same pages; a thread reads the next one while the previous one is written."""
    queue: Queue[T | BaseException | None] = Queue(1)
    closed = threading.Event()

    def read() -> None:
        try:
            for page in source:
                queue.put(page)
                if closed.is_set():
                    return
            queue.put(None)
        except BaseException as error:  # noqa: BLE001 (raised again by the iterator)
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
