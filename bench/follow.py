"""The latency of a follower beside a bare `watch` loop: from an acknowledged majority write to the value in Redis.

Writers insert documents at a constant rate, later they delete them. The keyspace notifications of Redis say when
a key of each was written or removed. `python -m bench.follow MONGO_URI DATABASE REDIS_URL` is the bare loop.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import redis
from pymongo import MongoClient

from bench.contenders import Rounds, Run, variables
from bench.documents import document
from bench.meter import ROOT, Failed, start_command
from bench.servers import COLLECTION, Bench, Source, Wrong
from etl.cache.keys import state_keys

WATCH: Final = "bare watch loop"
FOLLOW: Final = "etl follow"

RATES: Final = (10, 100, 1_000)
"""Writes a second."""

DELETES: Final = 100
"""Deletes a second."""

_WRITERS: Final = 16
_PATIENCE_SECONDS: Final = 30.0


def rounds(bench: Bench, seconds: int, count: int) -> Rounds:
    """Measure both in turn, `count` times, each rate for `seconds` seconds.

    Raises:
        Wrong: a write did not reach Redis.
        Failed: a contender did not start.
    """
    source = Source("follow", 0)
    found: Rounds = {WATCH: [], FOLLOW: []}
    bench.redis.config_set("notify-keyspace-events", "KA")
    for _ in range(count):
        for name, start in ((WATCH, _watch), (FOLLOW, _follow)):
            bench.flush()
            bench.collection(source).drop()
            bench.fill(source)
            with start(bench, source):
                found[name].append(_run(bench, source, name, seconds))
    bench.redis.config_set("notify-keyspace-events", "")
    return found


def _run(bench: Bench, source: Source, name: str, seconds: int) -> Run:
    collection = bench.collection(source)
    run: Run = {}
    first = 0
    for rate in RATES:
        numbers = range(first, first + rate * seconds)
        documents = {number: document(number) for number in numbers}
        keys = {_key(source, name, number): number for number in numbers}

        def insert(number: int, documents: Mapping[int, dict[str, Any]] = documents) -> None:
            collection.insert_one(documents[number] | {"updated_at": datetime.now(UTC)})

        run |= _latencies(bench, f"{rate}", keys, insert, rate)
        first = numbers.stop

    def delete(number: int) -> None:
        collection.delete_one({"_id": document(number)["_id"]})

    keys = {_key(source, name, number): number for number in range(first - DELETES * seconds, first)}
    return run | _latencies(bench, "deletes", keys, delete, DELETES)


def _key(source: Source, name: str, number: int) -> str:
    return str(document(number)["_id"]) if name == WATCH else source.entries(number)[0].key


def _latencies(
    bench: Bench, what: str, keys: Mapping[str, int], write: Callable[[int], None], rate: int
) -> Run:
    """Write at this rate; the p50, p99 and maximum in milliseconds."""
    seen: dict[int, float] = {}
    acknowledged: dict[int, float] = {}
    done = threading.Event()
    prefix = "__keyspace@0__:"

    def listen(channel: Any) -> None:
        while not done.is_set():
            message = channel.get_message(ignore_subscribe_messages=True, timeout=0.2)
            number = keys.get(message["channel"].removeprefix(prefix)) if message else None
            if number is not None:
                seen.setdefault(number, time.perf_counter())

    def timed(number: int) -> None:
        write(number)
        acknowledged[number] = time.perf_counter()

    client: Any = bench.redis
    with client.pubsub() as channel, ThreadPoolExecutor(_WRITERS) as writers:
        channel.psubscribe(f"{prefix}*")
        channel.get_message(timeout=1.0)
        listener = threading.Thread(target=listen, args=(channel,))
        listener.start()
        due = time.perf_counter()
        for number in keys.values():
            time.sleep(max(0.0, due - time.perf_counter()))
            writers.submit(timed, number)
            due += 1 / rate
        end = time.perf_counter() + _PATIENCE_SECONDS
        while not (len(seen) == len(acknowledged) == len(keys)) and time.perf_counter() < end:
            time.sleep(0.05)
        done.set()
        listener.join()
    if len(seen) < len(keys):
        raise Wrong(f"{len(keys) - len(seen)} of {len(keys)} writes did not reach Redis at {what}")
    taken = sorted(max(0.0, seen[number] - acknowledged[number]) * 1000 for number in keys.values())
    p50, p99 = (taken[int(len(taken) * part)] for part in (0.5, 0.99))
    return {f"{what}_p50_ms": p50, f"{what}_p99_ms": p99, f"{what}_max_ms": taken[-1]}


@contextmanager
def _watch(bench: Bench, source: Source) -> Iterator[None]:
    """The bare loop, at work during the block."""
    command = (sys.executable, "-m", "bench.follow", bench.mongod.uri, source.database, bench.server.url)
    with _process(command, {}) as process:
        if process.stdout is None or process.stdout.readline() != b"ready\n":
            raise Failed("the watch loop did not start")
        yield


@contextmanager
def _follow(bench: Bench, source: Source) -> Iterator[None]:
    """`etl follow`, at work during the block."""
    command = (sys.executable, "-m", "etl", "follow", COLLECTION)
    with _process(command, variables(bench, source)):
        end = time.perf_counter() + _PATIENCE_SECONDS
        while not bench.redis.hexists(state_keys(COLLECTION).follow, "token"):
            if time.perf_counter() > end:
                raise Failed("etl follow did not start")
            time.sleep(0.05)
        time.sleep(0.5)  # it opens its stream after that
        yield


@contextmanager
def _process(command: Sequence[str], changes: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    with start_command(command, changes, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.communicate()


def main(uri: str, database: str, url: str) -> None:
    """Write a plain SET for each insert, and a DEL for each delete."""
    client: Any = redis.Redis.from_url(url)
    client.ping()
    pipeline = [{"$project": {"operationType": True, "documentKey": True}}]
    with MongoClient[dict[str, Any]](uri)[database][COLLECTION].watch(pipeline) as stream:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for event in stream:
            key = str(event["documentKey"]["_id"])
            client.delete(key) if event["operationType"] == "delete" else client.set(key, "1")


if __name__ == "__main__":
    main(*sys.argv[1:4])
