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
    """The pages of a range, of `size` documents each; after `present` only documents dated in the future are read.

    Documents written since then belong to the next scan. Otherwise a fast writer could keep a scan from ending.

    Args:
        reader: reads one page.
        scan_range: where to read.
        size: documents per page.
        present: the server's clock when the scan began, in milliseconds since the epoch.
        clock: is called before each page is read.
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
                f"reading got no further: document {readable_id(page.last.id)} ends a page that"
                f" begins after {readable_id(begin.id)}, though it comes before that in the index"
            )
        yield read_at, page
        if not page.more:
            return
        if page.last is None:
            raise CycleFailed("reading got no further: a page has no documents, and is not the last")
        cursor = page.last
