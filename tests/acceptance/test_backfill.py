"""`etl backfill` as a person types it."""

import re
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import redis
from pymongo.collection import Collection

from tests.factories import api
from tests.support.command import Etl, StartEtl, interrupt
from tests.support.pipeline import STATE_PREFIX
from tests.support.redis_dump import contents, held
from tests.support.truth import truth
from tests.support.types import Document
from tests.support.waiting import eventually

LONG_AGO = datetime(2025, 1, 15, tzinfo=UTC)
WORKERS = ("--workers", "2")


def dated(count: int) -> list[Document]:
    """Providers a second apart."""
    return [api(f"p{n}", LONG_AGO + timedelta(seconds=n), _id=n) for n in range(count)]


def is_at_work(client: redis.Redis) -> bool:
    """Whether a backfill has recorded a page."""
    return bool(client.hexists(f"{STATE_PREFIX}backfill", "scan_cursor"))


def test_json(etl: Etl, typed: Etl, collection: Collection[Document], redis_client: redis.Redis) -> None:
    """One object on stdout, with the counts of a cycle's; by two processes."""
    collection.insert_many([*dated(1200), api("bad", LONG_AGO, status=[1])])

    result = etl("backfill", "promptContent", *WORKERS, "--json")

    assert result.code == 0, result.err
    # A slow machine may be told how far it is.
    assert all(line.startswith("Backfilling promptContent: ") for line in result.err.splitlines())
    report = result.json
    assert (report["collection"], report["status"], report["mode"]) == ("promptContent", "ok", "backfill")
    assert (report["records_processed"], report["written"], report["dead_lettered"]) == (1200, 1200, 1)
    assert report["last_timestamp"] == "2025-01-15T00:19:59Z"
    collection.delete_one({"provider_name": "bad"})
    assert held(redis_client) == truth(collection)
    assert typed("sync", "--json").json["collections"][0]["records_processed"] == 0


def test_a_dry_run(etl: Etl, collection: Collection[Document], redis_client: redis.Redis) -> None:
    """It says what would be written and why some would not, and writes nothing: not even that it has run."""
    collection.insert_many([*dated(30), *(api(f"b{n}", LONG_AGO, status=[1]) for n in range(2))])

    told = etl("backfill", "promptContent", "--dry-run")

    assert (told.code, told.problems) == (0, "")
    assert "dry run: nothing was written" in told.out
    assert re.search(r"^promptContent +ok +backfill +30 +30 ", told.out, re.MULTILINE)
    assert re.search(r"^ +2  .*status", told.out, re.MULTILINE)
    assert contents(redis_client) == {}


def test_between_two_dates(etl: Etl, collection: Collection[Document], redis_client: redis.Redis) -> None:
    """ISO dates, in UTC where they name no zone."""
    collection.insert_many(dated(10))

    bounds = ("--since", "2025-01-15T00:00:03", "--until", "2025-01-15T01:00:05+01:00")
    assert etl("backfill", "promptContent", *bounds).code == 0

    assert set(redis_client.keys("config:*")) == {"config:api:p3", "config:api:p4"}


def test_without_the_index(etl: Etl, collection: Collection[Document]) -> None:
    """The command that creates it, on stderr, once for each reading; and it works. A cold start likewise."""
    collection.drop_indexes()
    collection.insert_many(dated(10))
    for readings, command in enumerate((("sync",), ("backfill", "promptContent")), start=1):
        result = etl(*command, "--json")

        assert (result.code, isinstance(result.json, dict)) == (0, True)
        assert result.err.count("createIndex({'updated_at': 1, '_id': 1}") == readings


def test_a_rate_is_an_upper_bound_and_progress_is_told(etl: Etl, collection: Collection[Document]) -> None:
    """In a pipe a plain line every few seconds says how far it is, how fast, and what is left."""
    collection.insert_many([*dated(29), api("bad", LONG_AGO, status=[1])])
    began = time.monotonic()

    result = etl("backfill", "promptContent", "--rate", "10", ETL_COLLECTIONS=_pages_of(5))

    assert result.code == 0
    assert time.monotonic() - began >= 3
    line = (
        r"Backfilling promptContent: \d+ of 30 documents, [\d,]+/s, 0:00:0\d left, \d pages, 1 dead letters,"
        r" up to 2025-01-15T"
    )
    assert re.search(line, result.err)


def test_ctrl_c(
    start_etl: StartEtl, etl: Etl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """It ends in order within seconds, leaves no process behind, and the same command goes on."""
    collection.insert_many(dated(100))
    process = start_etl("backfill", "promptContent", *WORKERS, "--rate", "20", ETL_COLLECTIONS=_pages_of(5))
    assert eventually(lambda: is_at_work(redis_client))
    family = psutil.Process(process.pid).children(recursive=True)

    began = time.monotonic()
    result = interrupt(process)

    assert (result.code, time.monotonic() - began < 10) == (130, True)
    assert result.err.splitlines()[-1].startswith("error: promptContent: stopped between two batches")
    assert len(family) >= 2
    assert eventually(lambda: not any(child.is_running() for child in family))
    rest = etl("backfill", "promptContent", "--json").json["records_processed"]
    assert 0 < rest < 100
    assert held(redis_client) == truth(collection)


def test_a_second_one(
    start_etl: StartEtl, etl: Etl, typed: Etl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """It is told who is at work, and 75; a cycle may run beside the first one."""
    collection.insert_many(dated(100))
    process = start_etl("backfill", "promptContent", "--rate", "4", ETL_COLLECTIONS=_pages_of(5))
    assert eventually(lambda: is_at_work(redis_client))

    second, cycle = etl("backfill", "promptContent", "--json"), typed("sync")

    assert (second.code, second.json["status"]) == (75, "locked")
    assert f":{process.pid}:" in second.err
    assert cycle.code == 0
    assert interrupt(process).code == 130


def test_a_script_without_a_guard(
    environment: Mapping[str, str],
    collection: Collection[Document],
    redis_client: redis.Redis,
    tmp_path: Path,
) -> None:
    """The processes that transform do not run the program that has started them."""
    collection.insert_many(dated(20))
    script = tmp_path / "script.py"
    script.write_text(
        "print('begun', flush=True)\n"
        "from etl.app import App, BackfillOrder\n"
        "from etl.settings import load_with_origins\n"
        "from etl.backfill.executors import processes\n"
        "with App(load_with_origins(None, {}).settings) as app:\n"
        "    report = app.backfill('promptContent', BackfillOrder(executors=processes(2)), lambda _: None)\n"
        "print(report.status, report.records_processed)\n"
    )

    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.returncode, done.stderr, done.stdout) == (0, "", "begun\nok 20\n")
    assert held(redis_client) == truth(collection)


def _pages_of(size: int) -> str:
    return f'[{{"name": "promptContent", "page_size": {size}}}]'
