"""Who works on the pages of a long run: this process while they are few, an executor beyond."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Generic

from etl.backfill.executors import rarely_collecting
from etl.backfill.pipeline import Batch, Executors, Made, Page, Pool, Work


class Crew(Generic[Made]):
    """A pipeline that does the first `few` documents itself, and has others do the rest, read ahead."""

    def __init__(self, work: Work[Made], executors: Executors, few: int) -> None:
        self._work = work
        self._executors = executors
        self._few = few

    def __call__(self, pages: Iterable[Page]) -> Iterator[Batch[Made]]:
        """What becomes of each page, in order."""
        rest, done = iter(pages), 0
        for page in rest:
            if done >= self._few:
                yield from self._together(chain([page], rest))
                return
            done += len(page.documents)
            yield Batch(self._work.local(page.documents), page.last)

    def _together(self, pages: Iterable[Page]) -> Iterator[Batch[Made]]:
        with self._executors() as (executor, workers), rarely_collecting():
            yield from Pool(executor, self._work, 2 * workers + 1)(pages)
