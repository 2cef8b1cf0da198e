"""A task of a scan: pages read ahead, and the sum of their outcomes."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any, cast

import pytest

from etl.backfill.worker import merged, newest_position, read_ahead
from etl.model.batch import BatchOutcome, Deferred, Rejected
from schemas.operations import Reject
from tests.support.results import rejected, result
from tests.support.waiting import eventually


def test_pages_are_yielded_in_order() -> None:
    assert [*read_ahead(iter(range(50)))] == [*range(50)]
    assert [*read_ahead(iter(()))] == []


def test_few_pages_are_read_ahead() -> None:
    """One is written, one waits, one is being read: older ones would pass their deadline."""
    read: list[int] = []

    def recorded() -> Iterator[int]:
        for page in range(50):
            read.append(page)
            yield page

    with closing(cast("Any", read_ahead(recorded()))) as found:
        next(found)
        assert eventually(lambda: len(read) == 3)
        assert not eventually(lambda: len(read) > 3, seconds=0.2)
    assert len(read) <= 4


def test_error_is_raised_after_the_pages_before_it() -> None:
    def failing() -> Iterator[int]:
        yield from range(3)
        raise OSError("away")

    found = read_ahead(failing())
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="away"):
        next(found)


def test_close_ends_the_thread() -> None:
    """Even while it waits to hand over a page."""
    with closing(cast("Any", read_ahead(iter(range(1000))))) as found:
        next(found)
    assert not [thread for thread in threading.enumerate() if thread.name == "etl-read-ahead"]


def test_newest_position_is_dated_and_not_in_the_future() -> None:
    """Undated documents and those dated in the future do not move the watermark; invalid ones do."""
    page = [result(1, ms=5), rejected(2, ms=6), result(3, ms=9), result(4)._replace(timestamp=">x", ms=None)]
    assert newest_position(page, 8) == f"6 {rejected(2).id}"
    assert newest_position(page, 9) == f"9 {result(3).id}"
    assert newest_position(page, 4) is None
    assert newest_position([], 9) is None


def test_merged_adds_up_outcomes() -> None:
    """The last position counts."""
    first = BatchOutcome(
        processed=3,
        written=1,
        evicted=1,
        enqueued=1,
        entries=Counter({"a": 1}),
        rejected=[Rejected("1", Reject("bad"), "1")],
        deferred=[Deferred("2", "lock")],
        handled=["3"],
        queues={"q"},
        position="5 1",
        incomplete=1,
    )
    second = BatchOutcome(entries=Counter({"a": 2, "b": 1}), handled=["4"], queues={"r"}, incomplete=2)
    total = merged([first, second])
    assert (total.processed, total.written, total.evicted, total.enqueued) == (3, 1, 1, 1)
    assert total.entries == {"a": 3, "b": 1}
    assert (total.rejected, total.deferred) == (first.rejected, first.deferred)
    assert (total.handled, total.queues, total.position) == (["3", "4"], {"q", "r"}, "5 1")
    assert total.incomplete == 3
    assert merged([]) == BatchOutcome()
