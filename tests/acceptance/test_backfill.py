"""`etl backfill`."""

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


def has_recorded_a_page(client: redis.Redis) -> bool:
    """Whether a backfill has recorded a page."""
    return bool(client.hexists(f"{STATE_PREFIX}backfill", "scan_cursor"))


def test_backfill_json_is_one_document(
    etl: Etl, etl_in_process: Etl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """With the counts of a report; by two processes."""
    collection.insert_many([*dated(1200), api("bad", LONG_AGO, status=[1])])

    result = etl("backfill", "promptContent", *WORKERS, "--json")

    assert result.code == 0, result.err
    # On a slow machine progress is printed.
    assert all(line.startswith("Backfilling promptContent: ") for line in result.err.splitlines())
    report = result.json
    assert (report["collection"], report["status"], report["mode"]) == ("promptContent", "ok", "backfill")
    assert (report["records_processed"], report["written"], report["dead_lettered"]) == (1200, 1200, 1)
    assert report["last_timestamp"] == "2025-01-15T00:19:59Z"
    collection.delete_one({"provider_name": "bad"})
    assert held(redis_client) == truth(collection)
    assert etl_in_process("sync", "--json").json["collections"][0]["records_processed"] == 0


def test_dry_run_prints_counts_and_writes_nothing(
    etl: Etl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """And the reasons of rejections; it writes no history either."""
    collection.insert_many([*dated(30), *(api(f"b{n}", LONG_AGO, status=[1]) for n in range(2))])

    result = etl("backfill", "promptContent", "--dry-run")

    assert (result.code, result.problems) == (0, "")
    assert "dry run: nothing was written" in result.out
    assert re.search(r"^promptContent +ok +backfill +30 +30 ", result.out, re.MULTILINE)
    assert re.search(r"^ +2  .*status", result.out, re.MULTILINE)
    assert contents(redis_client) == {}


def test_backfill_between_two_dates(
    etl: Etl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """ISO dates; UTC if they have no zone."""
    collection.insert_many(dated(10))

    bounds = ("--since", "2025-01-15T00:00:03", "--until", "2025-01-15T01:00:05+01:00")
    assert etl("backfill", "promptContent", *bounds).code == 0

    assert set(redis_client.keys("config:*")) == {"config:api:p3", "config:api:p4"}


def test_missing_index_is_reported_once_per_scan(etl: Etl, collection: Collection[Document]) -> None:
    """On stderr, with the command that creates it; also by a cold start."""
    collection.drop_indexes()
    collection.insert_many(dated(10))
    for readings, command in enumerate((("sync",), ("backfill", "promptContent")), start=1):
        result = etl(*command, "--json")

        assert (result.code, isinstance(result.json, dict)) == (0, True)
        assert result.err.count("createIndex({'updated_at': 1, '_id': 1}") == readings


def test_rate_is_an_upper_bound_and_progress_is_printed(etl: Etl, collection: Collection[Document]) -> None:
    """A pipe gets a plain line every few seconds."""
    collection.insert_many([*dated(29), api("bad", LONG_AGO, status=[1])])
    began = time.monotonic()

    result = etl("backfill", "promptContent", "--rate", "10", ETL_COLLECTIONS=_pages_of(5))

    assert result.code == 0
    assert time.monotonic() - began >= 3
    line = (
        r"Backfilling promptContent: \d+ of 30 documents, [\d,]+/s, 0:00:0\d left, \d pages?, 1 dead letter,"
        r" up to 2025-01-15T"
    )
    assert re.search(line, result.err)


def test_ctrl_c_ends_a_backfill_and_the_next_one_resumes(
    start_etl: StartEtl, etl: Etl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """It ends within seconds, and leaves no process behind."""
    collection.insert_many(dated(100))
    process = start_etl("backfill", "promptContent", *WORKERS, "--rate", "20", ETL_COLLECTIONS=_pages_of(5))
    assert eventually(lambda: has_recorded_a_page(redis_client))
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


def test_second_backfill_is_refused(
    start_etl: StartEtl,
    etl: Etl,
    etl_in_process: Etl,
    collection: Collection[Document],
    redis_client: redis.Redis,
) -> None:
    """With the holder and exit code 75. A cycle may run beside the first one."""
    collection.insert_many(dated(100))
    process = start_etl("backfill", "promptContent", "--rate", "4", ETL_COLLECTIONS=_pages_of(5))
    assert eventually(lambda: has_recorded_a_page(redis_client))

    second, cycle = etl("backfill", "promptContent", "--json"), etl_in_process("sync")

    assert (second.code, second.json["status"]) == (75, "locked")
    assert f":{process.pid}:" in second.err
    assert cycle.code == 0
    assert interrupt(process).code == 130


def test_workers_do_not_run_a_script_without_main_guard(
    environment: Mapping[str, str],
    collection: Collection[Document],
    redis_client: redis.Redis,
    tmp_path: Path,
) -> None:
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
