"""Pages of documents become readings: by this process while they are few, by others beyond."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, cast

from etl.pipeline import Executors, Page, Pool
from etl.reading import Reader, Reading, unrow
from etl.workers import rarely_collecting


class Readers:
    """Reads the first `few` documents itself, and has an executor read the rest ahead."""

    def __init__(self, reader: Reader, executors: Executors, few: int) -> None:
        self._reader = reader
        self._executors = executors
        self._few = few

    def __call__(self, pages: Iterable[Page]) -> Iterator[list[Reading]]:
        """The readings of each page, in order."""
        rest, done = iter(pages), 0
        for page in rest:
            if done >= self._few:
                yield from self._together(chain([page], rest))
                return
            done += len(page.documents)
            yield self._reader(page.documents)

    def _together(self, pages: Iterable[Page]) -> Iterator[list[Reading]]:
        with rarely_collecting(), self._executors() as (executor, workers):
            # The pool hands on whatever its functions return; its types name outcomes only.
            unpack, local = cast("Any", unrow), cast("Any", self._reader)
            for batch in Pool(executor, self._reader.rows, unpack, local, 2 * workers + 1)(pages):
                yield cast("list[Reading]", batch.outcomes)
