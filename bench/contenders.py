"""The contenders, and the figures of one run.

Each run starts with an empty Redis. The time is that from the start of the process to its end; only bare insertion is
timed by itself, from the first command to the last reply. The CPU time of `etl` does not include the start of the
command and of its worker processes: it is measured with a small collection right before, and subtracted.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.documents import MAPPING
from bench.insertion import Packed
from bench.meter import ROOT, Failed, Measured, Meter
from bench.servers import COLLECTION, SLOW_MS, Bench, Source
from etl.demo.process import HOST

INSERTION: Final = "bare insertion"
SCRIPT: Final = "straightforward script"
BEFORE: Final = "etl backfill before, 2 workers"
ONE: Final = "etl backfill, 1 worker"
TWO: Final = "etl backfill, 2 workers"

START: Final = Source("start", 5_000)
"""A small collection, the smallest for which worker processes start."""

Run = dict[str, float]
"""The figures of one run. CPU is in seconds per 100,000 documents.

- `documents_per_second`; `own_documents_per_second` as the contender reports it, without the start of its process
- `cpu_ours` (the sum of `cpu_coordinator` and `cpu_workers`), `cpu_redis`, `cpu_mongodb`; `start_seconds`
- `pss_mb` of all processes of the contender, `worker_pss_mb` of its largest worker
- `slowest_ms` and `slow_commands` (over 2 ms) from the slow log of Redis
- with a reader also `read_p50_ms`, `read_p99_ms`, `read_max_ms`
"""

Rounds = dict[str, list[Run]]
"""The runs of each contender by its name, one of each round."""


class Contender(NamedTuple):
    """A command that is measured in every round."""

    name: str
    command: tuple[str, ...]
    source: Source
    variables: Mapping[str, str] = {}
    has_start: bool = False
    """Whether the CPU time of its start is measured and subtracted."""
    reader: tuple[str, ...] = ()
    """The command of a reader that runs at the same time."""


def insertion(bench: Bench, source: Source, packed: Packed) -> Contender:
    """Bare insertion of the keys of these documents."""
    arguments = (str(packed.path), str(packed.commands), HOST, str(bench.server.port))
    return Contender(INSERTION, _module("insertion", *arguments), source)


def script(bench: Bench, source: Source) -> Contender:
    """The straightforward script."""
    arguments = (bench.mongod.uri, source.database, COLLECTION, bench.server.url)
    return Contender(SCRIPT, _module("straightforward", *arguments), source)


def backfill(bench: Bench, source: Source, name: str, workers: int = 2, root: Path = ROOT) -> Contender:
    """`etl backfill` of the version in the folder `root`."""
    command = (*_ETL, "backfill", COLLECTION, "--workers", str(workers), "--json")
    return Contender(name, command, source, variables(bench, source, root), has_start=True)


def sync(bench: Bench, source: Source) -> Contender:
    """One cycle: `etl sync`."""
    return Contender("etl sync", (*_ETL, "sync", COLLECTION, "--json"), source, variables(bench, source))


def variables(bench: Bench, source: Source, root: Path = ROOT) -> dict[str, str]:
    """The settings of `etl`: both servers, the mapping of documents that need one, and defaults otherwise."""
    mapped = {"ETL_COLLECTIONS": json.dumps([{"name": COLLECTION, "fields": MAPPING}])}
    return (mapped if source.shape.mapped else {}) | {
        "PYTHONPATH": str(root),
        "ETL_MONGO__URI": bench.mongod.uri,
        "ETL_MONGO__DATABASE": source.database,
        "ETL_REDIS__URL": bench.server.url,
    }


def with_reader(bench: Bench, contender: Contender) -> Contender:
    """The same contender with a reader of its keys; its start is not measured."""
    source = contender.source
    reader = _module("reader", bench.server.url, source.database, str(source.documents))
    return contender._replace(reader=reader, has_start=False)


def rounds(bench: Bench, meter: Meter, contenders: Sequence[Contender], count: int) -> Rounds:
    """Measure all contenders in turn, `count` times, so that a slow minute of the machine affects all of them.

    Raises:
        Failed: a command ended with an error.
        Wrong: Redis does not hold the expected content after a run.
    """
    results: Rounds = {contender.name: [] for contender in contenders}
    for _ in range(count):
        for contender in contenders:
            results[contender.name].append(run(bench, meter, contender))
    return results


def run(bench: Bench, meter: Meter, contender: Contender) -> Run:
    """Measure one contender with an empty Redis.

    Raises:
        Failed: its command ended with an error.
        Wrong: Redis does not hold the expected content afterwards.
    """
    started = None
    if contender.has_start:
        bench.flush()
        started = once(meter, contender, {"ETL_MONGO__DATABASE": START.database, "ETL_COLLECTIONS": ""})
    bench.flush()
    with _beside(contender.reader) as reads:
        measured = once(meter, contender)
    slow = bench.slow_log()
    bench.check(contender.source)
    return figures_of(contender.source.documents, measured, started) | {
        "slowest_ms": max(slow, default=0.0),
        "slow_commands": sum(ms > SLOW_MS for ms in slow),
        **reads,
    }


def once(meter: Meter, contender: Contender, changes: Mapping[str, str] | None = None) -> Measured:
    """Run its command, with some variables changed. The answer is the report of the collection.

    Raises:
        Failed: the command ended with an error, or reports one.
    """
    measured = meter.run(contender.command, {**contender.variables, **(changes or {})})
    reports = measured.answer.get("collections", [measured.answer])
    if any(report.get("status", "ok") != "ok" for report in reports):
        raise Failed(f"{contender.name}: {reports}")
    return measured._replace(answer=reports[0])


def figures_of(documents: int, measured: Measured, started: Measured | None) -> Run:
    """The figures of one run.

    Args:
        documents: how many were copied.
        measured: the run.
        started: the same command with the documents of `START`, to be subtracted.
    """
    answer, used, counted = measured.answer, measured.cpu_seconds, documents
    if started:
        used = {
            name: max(0.0, round(seconds - started.cpu_seconds[name], 2)) for name, seconds in used.items()
        }
        counted = documents - START.documents
    cpu = {f"cpu_{name}": seconds / counted * 100_000 for name, seconds in used.items()}
    seconds = answer.get("seconds", measured.seconds)
    return {
        "documents_per_second": documents / seconds,
        "own_documents_per_second": documents / (answer.get("sync_duration_ms", 0) / 1000 or seconds),
        "cpu_ours": cpu["cpu_coordinator"] + cpu["cpu_workers"],
        **cpu,
        "start_seconds": started.seconds if started else 0.0,
        "pss_mb": measured.pss_mb,
        "worker_pss_mb": measured.worker_pss_mb,
    }


@contextmanager
def _beside(command: Sequence[str]) -> Iterator[dict[str, float]]:
    """Run a reader during the block; afterwards the yielded mapping contains its figures."""
    figures: dict[str, float] = {}
    if not command:
        yield figures
        return
    pipe: Any = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise Failed("the reader did not start")
        yield figures
        figures |= json.loads(process.communicate()[0])


_ETL: Final = (sys.executable, "-m", "etl")


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"bench.{name}", *arguments)
