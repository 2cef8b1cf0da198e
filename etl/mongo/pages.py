"""The pages of one scan, read with patience."""

import logging
from collections.abc import Iterator
from typing import Final

from etl import logs
from etl.errors import CycleFailed
from etl.interfaces import Page, Source
from etl.retry import Retry
from etl.sync.planner import Scan, earliest, latest
from schemas.position import after

_log: Final = logging.getLogger("etl.reader")


def pages(source: Source, scan: Scan, size: int, retry: Retry) -> Iterator[Page]:
    """The pages of the scan, of `size` documents; past its own clock it jumps to the present.

    What was written since belongs to the next scan, and only documents dated in the future are
    left to be read. Otherwise a fast writer could keep a scan from ever ending. Who reads all of a
    collection without the index is told so, and how to create it.

    Raises:
        EtlError: MongoDB stays away, or refuses.
    """
    if source.index.warning is not None:
        _log.warning("%s", source.index.warning, extra=logs.event("index"))
    cursor, present = scan.cursor, after(scan.clocks.mongo)
    while True:
        begin = cursor
        page = retry(lambda: source.page(begin, scan.end, size))  # noqa: B023 (called at once)
        yield page
        if not page.more:
            return
        if page.last is None:
            raise CycleFailed("no document of a whole page has a position to read on from")
        cursor = page.last
        if earliest(cursor, present) == present:
            cursor = latest(cursor, after(retry(source.clock))) or cursor
