"""The pages of one range of the index: the only loop that reads a collection."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from etl.errors import CycleFailed
from etl.interfaces import Reader
from etl.model.scan import ScanRange, earliest, latest
from etl.retry import Retry
from schemas.ids import readable_id
from schemas.position import Position, after


class ReadPage(NamedTuple):
    """Raw documents in index order."""

    read_at: int
    """What the clock said before they were read."""
    documents: list[bytes]
    last: Position | None
    """Where the reader stands after them; None without documents."""
    more: bool
    """Whether there may be more after them."""


def pages(
    reader: Reader, scan_range: ScanRange, size: int, present: int, clock: Callable[[], int], retry: Retry
) -> Iterator[ReadPage]:
    """The pages of a range, of `size` documents; past `present` it jumps to the present.

    A document written since belongs to the next scan, and only documents dated in the future are left to be
    read. Otherwise a fast writer could keep a scan from ever ending.

    Args:
        reader: reads one page.
        scan_range: where to read.
        size: how many documents a page has.
        present: the server's clock when the scan began, in milliseconds since the epoch.
        clock: is asked before each page is read.
        retry: repeats each step while a server is away.

    Raises:
        EtlError: a server stays away, or refuses.
        CycleFailed: a page leads no further, so that a loop over pages would never end.
    """
    cursor, future = scan_range.after, after(present)
    while True:
        if earliest(cursor, future) == future:
            cursor = latest(cursor, after(retry(reader.clock))) or cursor
        begin, read_at = cursor, retry(clock)
        page = retry(lambda: reader.page(begin, scan_range.end, size))  # noqa: B023 (called at once)
        if page.last is not None and page.last.order() <= begin.order():
            raise CycleFailed(
                f"reading got no further: document {readable_id(page.last.id)} ends a page that"
                f" begins after {readable_id(begin.id)}, though it comes before that in the index"
            )
        yield ReadPage(read_at, page.documents, page.last, page.more)
        if not page.more:
            return
        if page.last is None:
            raise CycleFailed("reading got no further: a page has no documents, and is not the last")
        cursor = page.last
