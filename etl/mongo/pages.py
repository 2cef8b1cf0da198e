"""The pages of one range of the index: the only loop that reads a collection."""

from collections.abc import Callable, Iterator

from etl.errors import CycleFailed
from etl.interfaces import Reader
from etl.model.page import Page
from etl.model.scan import ScanRange, earliest, latest
from etl.retry import Retry
from schemas.ids import readable_id
from schemas.position import after


def pages(
    reader: Reader, scan_range: ScanRange, size: int, present: int, clock: Callable[[], int], retry: Retry
) -> Iterator[tuple[int, Page]]:
    """The pages of a range, without documents dated between `present` and the time of the read.

    These were written since the scan began, and belong to the next one: otherwise a fast writer could keep a scan from
    ending. Documents dated in the future are read.

    Args:
        reader: reads one page.
        scan_range: the range to read.
        size: maximum number of documents per page.
        present: the server's clock when the scan began, in milliseconds since the epoch.
        clock: is read before each page.
        retry: retries each step while a server does not answer.

    Yields:
        The clock before the page was read, and the page.

    Raises:
        EtlError: a server does not answer, or refuses.
        CycleFailed: a page does not advance the cursor, so the loop would never end.
    """
    cursor, future = scan_range.after, after(present)
    while True:
        if earliest(cursor, future) == future:
            cursor = latest(cursor, after(retry(reader.clock))) or cursor
        begin, read_at = cursor, retry(clock)
        page = retry(lambda: reader.page(begin, scan_range.end, size))  # noqa: B023 (called at once)
        if page.last is not None and page.last.order() <= begin.order():
            raise CycleFailed(
                f"reading does not advance: document {readable_id(page.last.id)} ends the page after"
                f" {readable_id(begin.id)}, but precedes it in the index"
            )
        yield read_at, page
        if not page.more:
            return
        if page.last is None:
            raise CycleFailed("reading does not advance: a page has no documents, and is not the last")
        cursor = page.last
