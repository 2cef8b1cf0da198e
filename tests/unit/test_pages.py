"""The loop over pages advances or ends."""

import threading
from itertools import count, islice
from typing import Any, cast

import pytest
from bson.datetime_ms import DatetimeMS

from etl.errors import CycleFailed
from etl.interfaces import Reader
from etl.model.page import Page
from etl.model.scan import ScanRange
from etl.mongo.pages import pages
from etl.retry import Retry
from schemas.position import FIRST, LAST, Position, after

PRESENT = 1_000


def dated(ms: int, document_id: Any = "id") -> Position:
    """A position at a date."""
    return Position(DatetimeMS(ms), document_id)


class FakeReader:
    """Returns the given pages one after the other, and repeats the last one."""

    def __init__(self, *pages_: Page) -> None:
        self._pages = pages_
        self.asked: list[Position] = []

    def page(self, begin: Position, end: Position, limit: int) -> Page:
        self.asked.append(begin)
        return self._pages[min(len(self.asked), len(self._pages)) - 1]

    def clock(self) -> int:
        """Return a time later than the present of the scan."""
        return 5_000


def read(reader: FakeReader, begin: Position = FIRST) -> list[tuple[int, Page]]:
    """Read all pages; the read times count from 0."""
    retry, ticks = Retry(0, threading.Event()), count()
    found = pages(cast("Reader", reader), ScanRange(begin, LAST), 2, PRESENT, lambda: next(ticks), retry)
    return [*islice(found, 10)]


def test_pages_follow_each_other() -> None:
    """The clock is read before each."""
    reader = FakeReader(Page([b"1"], dated(1), more=True), Page([b"2"], dated(2), more=False))
    assert read(reader) == [(0, ([b"1"], dated(1), True)), (1, ([b"2"], dated(2), False))]
    assert reader.asked == [FIRST, dated(1)]


@pytest.mark.parametrize("last", [dated(5), dated(4), dated(5, "aa"), dated(5, 7)])
def test_page_that_does_not_advance_fails_and_names_the_document(last: Position) -> None:
    """At the first page: each task of a backfill starts its own loop."""
    reader = FakeReader(Page([b"1"], last, more=True))
    with pytest.raises(CycleFailed, match=r"document (\"id\"|\"aa\"|7) ends the page"):
        read(reader, dated(5))
    assert len(reader.asked) == 1


def test_empty_page_must_be_the_last() -> None:
    """Otherwise the loop would never end."""
    assert read(FakeReader(Page([], None, more=False))) == [(0, ([], None, False))]
    with pytest.raises(CycleFailed, match="no documents, and is not the last"):
        read(FakeReader(Page([], None, more=True)))


def test_scan_past_the_present_jumps_to_the_clock() -> None:
    """Documents written meanwhile are left to the next scan; those dated in the future are read."""
    reader = FakeReader(
        Page([b"1"], dated(PRESENT), more=True),
        Page([b"2"], dated(PRESENT + 1), more=True),
        Page([b"3"], dated(9_000), more=True),
        Page([], None, more=False),
    )
    read(reader)
    assert reader.asked == [FIRST, dated(PRESENT), after(5_000), dated(9_000)]
