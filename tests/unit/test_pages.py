"""The one loop over pages: it moves forward, or it ends."""

import threading
from collections.abc import Sequence
from itertools import count, islice
from typing import Any, cast

import pytest
from bson.datetime_ms import DatetimeMS

from etl.errors import CycleFailed
from etl.interfaces import Reader
from etl.model.page import Page
from etl.model.scan import ScanRange
from etl.mongo.pages import ReadPage, pages
from etl.retry import Retry
from schemas.position import FIRST, LAST, Position, after

PRESENT = 1_000


def dated(ms: int, document_id: Any = "id") -> Position:
    """A position."""
    return Position(DatetimeMS(ms), document_id)


class Told:
    """A reader that has these pages, one after the other, and repeats the last one for ever."""

    def __init__(self, *told: Page) -> None:
        self._told = told
        self.asked: list[Position] = []

    def page(self, begin: Position, end: Position, limit: int) -> Page:
        """The next page."""
        self.asked.append(begin)
        return self._told[min(len(self.asked), len(self._told)) - 1]

    def clock(self) -> int:
        """Later than the present of the scan."""
        return 5_000


def read(reader: Told, begin: Position = FIRST) -> Sequence[ReadPage]:
    """All pages, and when each was read."""
    retry, ticks = Retry(0, threading.Event()), count()
    found = pages(cast("Reader", reader), ScanRange(begin, LAST), 2, PRESENT, lambda: next(ticks), retry)
    return [*islice(found, 10)]


def test_each_page_begins_where_the_one_before_has_ended() -> None:
    """The clock is asked before each."""
    reader = Told(Page([b"1"], dated(1), more=True), Page([b"2"], dated(2), more=False))
    assert read(reader) == [(0, [b"1"], dated(1), True), (1, [b"2"], dated(2), False)]
    assert reader.asked == [FIRST, dated(1)]


@pytest.mark.parametrize("last", [dated(5), dated(4), dated(5, "aa"), dated(5, 7)])
def test_a_page_that_does_not_advance_fails_and_names_the_document(last: Position) -> None:
    """Also at once, as each task of a backfill begins a loop of its own: none may ever read one page for ever."""
    reader = Told(Page([b"1"], last, more=True))
    with pytest.raises(CycleFailed, match=r"document (\"id\"|\"aa\"|7) ends a page"):
        read(reader, dated(5))
    assert len(reader.asked) == 1


def test_a_page_without_documents_is_the_last() -> None:
    """One that claims not to be would be asked for for ever."""
    assert read(Told(Page([], None, more=False))) == [(0, [], None, False)]
    with pytest.raises(CycleFailed, match="no documents, and is not the last"):
        read(Told(Page([], None, more=True)))


def test_a_scan_past_the_present_jumps_to_the_clock() -> None:
    """What is written meanwhile is left to the next scan, and documents dated in the future are read."""
    reader = Told(
        Page([b"1"], dated(PRESENT), more=True),
        Page([b"2"], dated(PRESENT + 1), more=True),
        Page([b"3"], dated(9_000), more=True),
        Page([], None, more=False),
    )
    read(reader)
    assert reader.asked == [FIRST, dated(PRESENT), after(5_000), dated(9_000)]
