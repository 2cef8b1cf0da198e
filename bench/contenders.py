"""Who is measured, and by which clock.

The two ceilings say themselves how long they took, without the start of their process. The script and the
product are measured from outside, from the start of the process to its end: what a person waits for.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.meter import Failed, Measured, Meter
from bench.recorder import Recorder, Recording, keep_data, without_transactions
from bench.servers import COLLECTION, DATABASE, Bench
from etl.demo.process import HOST

INSERTION: Final = "mass insertion"
INSERTION_BARE: Final = "  the same without MULTI"
SCAN: Final = "MongoDB scan"
SCRIPT: Final = "straightforward script"
BACKFILL_ONE: Final = "etl backfill, 1 worker"
BACKFILL_ALL: Final = "etl backfill, all workers"

WORKERS: Final = len(os.sched_getaffinity(0))
"""All workers: as many as this process may use cores."""

_ETL: Final = str(Path(sys.executable).with_name("etl"))


class Recordings(NamedTuple):
    """What the product sends, as it sends it and without the transactions around it."""

    data: Recording
    bare: Recording


class Contender(NamedTuple):
    """One that is measured in every round; `seconds` reads its time, `workers` how many it was given."""

    name: str
    command: tuple[str, ...]
    variables: Mapping[str, str]
    seconds: Callable[[Measured], float]
    fills: bool = True
    workers: int = 0


class Run(NamedTuple):
    """One measurement of one contender; `seconds` is by its clock."""

    seconds: float
    measured: Measured


Rounds = dict[str, list[Run]]
"""The measurements of each contender by its name, one of each round."""


def backfill(bench: Bench, name: str, workers: int) -> Contender:
    """The product: the installed command, as a user types it."""
    command = (_ETL, "backfill", COLLECTION, "--workers", str(workers), "--json")
    return Contender(name, command, variables(bench), _wall, workers=workers)


def sync(bench: Bench) -> Contender:
    """One cycle of the product."""
    return Contender("etl sync", (_ETL, "sync", COLLECTION, "--json"), variables(bench), _wall)


def contenders(bench: Bench, recordings: Recordings) -> list[Contender]:
    """All of them, in the order of a round."""
    mongo, cache = bench.servers.mongo.uri, bench.servers.redis
    return [
        _insertion(INSERTION, recordings.data, cache.port),
        _insertion(INSERTION_BARE, recordings.bare, cache.port),
        Contender(SCAN, _module("scan", mongo, DATABASE, COLLECTION), {}, _own, fills=False),
        Contender(SCRIPT, _module("straightforward", mongo, DATABASE, COLLECTION, cache.url), {}, _wall),
        backfill(bench, BACKFILL_ONE, 1),
        backfill(bench, BACKFILL_ALL, WORKERS),
    ]


def rounds(bench: Bench, meter: Meter, taking_part: Sequence[Contender], count: int, rounds: int) -> Rounds:
    """Measure each in turn, and all of them again, so that a slow minute of the machine meets all alike.

    Raises:
        Wrong: a contender did not leave in Redis what the first `count` documents give.
    """
    results: Rounds = {contender.name: [] for contender in taking_part}
    for _ in range(rounds):
        for contender in taking_part:
            bench.flush()
            measured = run(meter, contender)
            if contender.fills:
                bench.check(count)
            results[contender.name].append(Run(contender.seconds(measured), measured))
    return results


def run(meter: Meter, contender: Contender) -> Measured:
    """Measure one of them.

    Raises:
        Failed: it did not end well.
    """
    measured = meter.run(contender.command, contender.variables)
    reports = measured.answer.get("collections", [measured.answer])
    if any(report.get("status", "ok") != "ok" for report in reports):
        raise Failed(f"{contender.name}: {reports}")
    return measured._replace(answer=reports[0])


def record(bench: Bench, meter: Meter, folder: Path) -> Recordings:
    """The data commands of one backfill, as it sends them, in files of this folder."""
    with Recorder(bench.servers.redis.port, folder) as recorder:
        recorded = backfill(bench, "recorded", WORKERS)
        through = {**recorded.variables, "ETL_REDIS__URL": recorder.url}
        run(meter, recorded._replace(variables=through))
    data = keep_data(recorder.files, folder / "data")
    return Recordings(data, without_transactions(data, folder / "bare"))


def variables(bench: Bench) -> dict[str, str]:
    """The settings of the product: the two addresses, and defaults for all else."""
    return {
        "ETL_MONGO__URI": bench.servers.mongo.uri,
        "ETL_MONGO__DATABASE": DATABASE,
        "ETL_REDIS__URL": bench.servers.redis.url,
    }


def _insertion(name: str, recording: Recording, port: int) -> Contender:
    arguments = (str(recording.path), str(recording.replies), HOST, str(port))
    return Contender(name, _module("ceiling", *arguments), {}, _own)


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"bench.{name}", *arguments)


def _wall(measured: Measured) -> float:
    return measured.wall_seconds


def _own(measured: Measured) -> float:
    return float(measured.answer["seconds"])
