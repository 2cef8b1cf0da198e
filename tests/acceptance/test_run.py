"""`etl run`: the daemon as a process."""

import signal
import time
from datetime import UTC, datetime, timedelta

import redis
from pymongo import MongoClient
from pymongo.collection import Collection

from tests.support.command import Etl, StartEtl, end_of
from tests.support.daemons import (
    HISTORY,
    LEASE,
    STATE_PREFIX,
    ended,
    every,
    is_ready,
    key,
    provider,
    url_of,
)
from tests.support.failpoint import after, fail_command
from tests.support.http import get
from tests.support.types import Document, StartRedis
from tests.support.waiting import eventually

EVERY_SECOND = {"ETL_SCHEDULE__CYCLE_SECONDS": "1"}
LAST_SYNC = "etl:last_sync:promptContent"


def test_daemon_runs_cycles_until_sigterm(
    start_etl: StartEtl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """The first one at once. SIGTERM releases the lease."""
    collection.insert_one(provider(0))
    process = start_etl("run", **EVERY_SECOND)
    assert eventually(lambda: bool(redis_client.exists(key(0))))
    for number in range(1, 4):
        collection.insert_one(provider(number))
        name = key(number)
        assert eventually(lambda name=name: bool(redis_client.exists(name)))  # type: ignore[misc]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 0
    assert not redis_client.exists(LEASE)


def test_two_daemons_share_the_cycles_and_one_takes_over(
    start_etl: StartEtl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """After `kill -9` of one the other continues."""
    first = start_etl("run", **EVERY_SECOND, ETL_LEASE__SECONDS="1")
    start_etl("run", **EVERY_SECOND, ETL_LEASE__SECONDS="1")
    collection.insert_one(provider(1))
    assert eventually(lambda: bool(redis_client.exists(key(1))))
    before, began = redis_client.llen(HISTORY), time.monotonic()
    assert eventually(lambda: redis_client.llen(HISTORY) >= before + 6)
    assert time.monotonic() - began > 3.5, "each of them runs its own cycles"
    first.kill()
    collection.insert_one(provider(2))
    assert eventually(lambda: bool(redis_client.exists(key(2))))


def test_daemon_may_start_before_redis(
    start_etl: StartEtl, collection: Collection[Document], start_redis: StartRedis
) -> None:
    """It logs that it waits, and starts when Redis answers, not an interval later."""
    server = start_redis()
    server.stop()
    collection.insert_one(provider(3))
    process = start_etl("run", ETL_REDIS__URL=server.url, ETL_RETRY__SECONDS="1")
    assert process.stderr
    # It must have noticed the missing server before that starts.
    assert any("does not answer" in line for line in process.stderr)
    assert process.poll() is None
    server.start()
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        assert eventually(lambda: bool(client.exists(key(3))))
    server.stop()
    assert not eventually(lambda: process.poll() is not None, seconds=2)
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=8)  # sooner than Redis' time-out
    assert process.returncode == 0
    assert log.count("does not answer") <= 4 + 4  # a line when it begins, for each of the two jobs
    assert "Traceback" not in log


def test_suspended_daemon_reports_skipped_runs(start_etl: StartEtl, redis_client: redis.Redis) -> None:
    """Runs that were due meanwhile are counted as skipped."""
    settings = every(1)
    process = start_etl("run", **settings)
    assert eventually(lambda: bool(redis_client.llen(HISTORY)))
    process.send_signal(signal.SIGSTOP)
    time.sleep(4.5)
    process.send_signal(signal.SIGCONT)
    url = f"{url_of(settings)}/metrics"

    def count(name: str) -> float:
        series = f'etl_{name}_runs_total{{task="promptContent"}} '
        [line] = [line for line in get(url).text.splitlines() if line.startswith(series)]
        return float(line.split()[-1])

    assert eventually(lambda: count("skipped") >= 2)
    log = ended(process)
    assert {"skipped"} <= {line["action"] for line in log}


def test_daemon_stops_between_two_batches(
    start_etl: StartEtl,
    etl_in_process: Etl,
    collection: Collection[Document],
    mongo_client: MongoClient[Document],
    redis_client: redis.Redis,
) -> None:
    """Of a cold start. The lease is released, and the next cycle resumes."""
    count, moment = 10_000, datetime.now(UTC) - timedelta(hours=1)  # a delta reads the last minutes again
    dates = [{"updated_at": moment + timedelta(milliseconds=number)} for number in range(count)]
    collection.insert_many([provider(number) | date for number, date in enumerate(dates)])
    slow: dict[str, object] = {"blockConnection": True, "blockTimeMS": 300, "appName": "promptcontent-etl"}
    with fail_command(mongo_client, "find", mode=after(0), **slow):
        process = start_etl("run", **every(1))
        assert eventually(lambda: bool(redis_client.hexists(f"{STATE_PREFIX}checkpoint", "scan_cursor")))
        ended(process, signal.SIGINT)
    assert not redis_client.exists(LEASE)
    assert not redis_client.exists("etl:last_sync:promptContent"), "the cold start ended before the signal"
    key_count = len(list(redis_client.scan_iter("config:api:*", count=5000)))
    assert 600 < key_count < count
    report = etl_in_process("sync", "--json").json["collections"][0]
    assert 0 < report["records_processed"] < count
    assert len(list(redis_client.scan_iter("config:api:*", count=5000))) == count


def test_log_has_no_secrets(start_etl: StartEtl, start_redis: StartRedis) -> None:
    """In either format, and with `--verbose`."""
    server = start_redis(password="hunter2")
    wrong = server.url.replace("hunter2", "hunter3")
    for form in ("text", "json"):
        settings = every(1) | {"ETL_REDIS__URL": wrong, "ETL_LOG__FORMAT": form}
        process = start_etl("--verbose", "run", **settings)
        url = url_of(settings)
        assert eventually(lambda url=url: _refused(url))  # type: ignore[misc]
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "refuses" in log
        assert "hunter" not in log


def _refused(url: str) -> bool:
    try:
        return "refuses" in get(f"{url}/readyz").text
    except OSError:
        return False


def test_http_status_equals_etl_status(
    start_etl: StartEtl, etl: Etl, collection: Collection[Document]
) -> None:
    """The daemon is ready after its first cycle."""
    collection.insert_one(provider(0))
    settings = every(60)
    start_etl("run", **settings)
    url = url_of(settings)
    assert eventually(lambda: is_ready(url))
    [over_http], [printed] = (
        answer.json["collections"] for answer in (get(f"{url}/status"), etl("status", "--json", **settings))
    )
    assert over_http.pop("seconds_since_success") <= printed.pop("seconds_since_success")
    assert over_http == printed
    assert over_http["last_cycle"]["records_processed"] == 1
    assert (
        'etl_documents_total{collection="promptContent",outcome="written"} 1.0' in get(f"{url}/metrics").text
    )
    [recent] = get(f"{url}/history").json["collections"]
    assert recent["runs"][0]["records_processed"] == 1
    assert get(f"{url}/status").json["daemon"]["cycle_seconds"] == 60
    assert get(f"{url}/").kind.startswith("text/html")


def test_second_daemon_on_the_port_fails_in_one_line(start_etl: StartEtl) -> None:
    """The exit code is 2."""
    settings = every(60)
    start_etl("run", **settings)
    assert eventually(lambda: is_ready(url_of(settings)))
    result = end_of(start_etl("run", **settings))
    assert (result.code, result.out) == (2, "")
    assert result.problems.count("\n") == 1
    assert f"cannot listen on 127.0.0.1:{settings['ETL_HTTP__PORT']}: Address already in use" in result.err


def test_log_format_is_json_or_text(start_etl: StartEtl, collection: Collection[Document]) -> None:
    """Each cycle has an id, and no line contains a document."""
    collection.insert_one(provider(0))
    settings = every(60)
    process = start_etl("run", **settings)
    assert eventually(lambda: is_ready(url_of(settings)))
    lines = ended(process)
    assert [line["action"] for line in lines] == ["listening", "started", "cycle", "stopping", "stopped"]
    assert lines[2]["collection"] == "promptContent"
    assert len(lines[2]["cycle"]) == 8
    assert (lines[2]["processed"], lines[2]["mode"]) == (1, "cold_start")
    text = start_etl("run", **settings | {"ETL_LOG__FORMAT": "text"})
    assert eventually(lambda: is_ready(url_of(settings)))
    text.send_signal(signal.SIGTERM)
    _, log = text.communicate(timeout=20)
    assert f" INFO listening: answering at {url_of(settings)}\n" in log
    assert "{" not in log
