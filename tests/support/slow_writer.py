"""A worker in a process of its own that can be stopped between reading, recording and writing a page.

    python -m tests.support.slow_writer DEADLINE_SECONDS read|recorded

The settings come from the environment, as always. Prints where it is and waits for a line; at the end prints what
it counted. The deadline is one that no product has: a test has no time for the real one.
"""

import json
import sys
from typing import Any

from etl.cache import writer
from etl.container import Container
from etl.settings import load
from schemas.position import FIRST, LAST


def wait(where: str) -> None:
    """Say where it is, and go on when told to."""
    print(where, flush=True)  # noqa: T201 (what it is for)
    sys.stdin.readline()


def main(deadline: float, where: str) -> None:
    """Read all documents as one page, and write them."""
    writer.DEADLINE_SECONDS = deadline  # type: ignore[misc]
    settings = load()
    container = Container(settings, lambda _: None)
    collection = settings.collections[0]
    stages = container.stages(collection, container.keys(collection))
    stages.reader.prepare()
    read_at = stages.processor.now()
    results = stages.transform(stages.reader.page(FIRST, LAST, 1_000).documents)
    if where == "read":
        wait(where)
    else:
        apply, calls = writer.CacheWriter.apply, iter([wait])

        def waiting(self: writer.CacheWriter, *arguments: Any) -> writer.Applied:
            next(calls, lambda _: None)(where)
            return apply(self, *arguments)

        writer.CacheWriter.apply = waiting  # type: ignore[assignment,method-assign]
    outcome = stages.processor.process(results, read_at, remember_from=None, trust=False)
    print(json.dumps({"processed": outcome.processed, "enqueued": outcome.enqueued}), flush=True)  # noqa: T201
    container.close()


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2])
