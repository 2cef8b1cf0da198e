"""A reader of the cache that measures its latency.

`python -m bench.reader REDIS_URL DATABASE DOCUMENTS` reads keys of these documents at a constant rate until its stdin
is closed. The latency of a read counts from the time at which it was due, so a pause of Redis counts for every read
that was delayed by it.
"""

import gc
import json
import random
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

import redis

from bench.servers import Source, prioritise
from schemas.families import CAMPAIGN_MESSAGES

RATE: Final = 500
"""Reads a second."""

_KEYS: Final = 2_000


def read(client: "redis.Redis", keys: Sequence[str], done: threading.Event) -> list[float]:
    """Read these keys in turn until `done` is set; returns the latency of each read in milliseconds."""
    taken: list[float] = []
    due = time.perf_counter()
    while not done.wait(max(0.0, due - time.perf_counter())):
        key = keys[len(taken) % len(keys)]
        client.lrange(key, 0, -1) if key.startswith(CAMPAIGN_MESSAGES.prefix) else client.hgetall(key)
        taken.append((time.perf_counter() - due) * 1000)
        due += 1 / RATE
    return taken


def summary(taken: Sequence[float]) -> dict[str, float]:
    """The median, the 99th percentile and the maximum."""
    ordered = sorted(taken)
    p50, p99 = (ordered[int(len(ordered) * part)] for part in (0.5, 0.99))
    return {"read_p50_ms": p50, "read_p99_ms": p99, "read_max_ms": ordered[-1]}


def main(url: str, database: str, documents: str) -> None:
    """Read until stdin is closed, then print the summary as JSON."""
    source = Source(database, int(documents))
    numbers = random.sample(range(source.documents), min(source.documents, _KEYS))
    keys = [entry.key for number in numbers for entry in source.entries(number)]
    done = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        done.set()

    prioritise(0)
    gc.disable()  # a garbage collection would look like a pause of Redis
    client: Any = redis.Redis.from_url(url)
    client.ping()
    threading.Thread(target=wait_for_end).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdout.write(json.dumps(summary(read(client, keys, done))))


if __name__ == "__main__":
    main(*sys.argv[1:4])
