"""A worker in its own process that pauses between reading, recording and writing a page.

    python -m tests.support.slow_writer DEADLINE_SECONDS read|recorded

The settings come from the environment. Prints the step and waits for a line; at the end prints its
counts. The deadline is shorter than that of the product, so that tests are fast.
"""

import json
import sys
from typing import Any

from etl.cache import writer
from etl.container import Container
from etl.settings import load
from schemas.position import FIRST, LAST


def wait(step: str) -> None:
    """Print the step, and wait for a line on stdin."""
    print(step, flush=True)  # noqa: T201 (its purpose)
    sys.stdin.readline()


def main(deadline: float, step: str) -> None:
    """Read all documents as one page, and write them."""
    writer.DEADLINE_SECONDS = deadline  # type: ignore[misc]
    settings = load()
    container = Container(settings, lambda _: None)
    collection = settings.collections[0]
    stages = container.stages(collection, container.keys(collection))
    stages.reader.prepare()
    read_at = stages.processor.now()
    results = stages.transform(stages.reader.page(FIRST, LAST, 1_000).documents)
    if step == "read":
        wait(step)
    else:
        apply, calls = writer.CacheWriter.apply, iter([wait])

        def waiting(self: writer.CacheWriter, *arguments: Any) -> writer.Applied:
            next(calls, lambda _: None)(step)
            return apply(self, *arguments)

        writer.CacheWriter.apply = waiting  # type: ignore[assignment,method-assign]
    outcome = stages.processor.process(results, read_at, remember_from=None, skip_done=False)
    print(json.dumps({"processed": outcome.processed, "enqueued": outcome.enqueued}), flush=True)  # noqa: T201
    container.close()


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2])
