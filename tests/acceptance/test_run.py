"""`etl run`, the daemon, as a process."""

import signal
import time
from datetime import UTC, datetime, timedelta

import redis
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
from tests.support.http import get
from tests.support.types import Document, StartRedis
from tests.support.waiting import eventually

EVERY_SECOND = {"ETL_SCHEDULE__CYCLE_SECONDS": "1"}
LAST_SYNC = "etl:last_sync:promptContent"


def test_it_follows_mongodb_until_it_is_asked_to_stop(
    start_etl: StartEtl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """The first cycle at once, the next ones by themselves; SIGTERM ends it well and gives the lease back."""
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


def test_two_daemons_share_the_intervals_and_one_survives(
    start_etl: StartEtl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Two work as one; after kill -9 of either the cycles go on and nothing is lost."""
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


def test_the_order_of_starting_does_not_matter(
    start_etl: StartEtl, collection: Collection[Document], start_redis: StartRedis
) -> None:
    """With Redis away it waits, says so, and begins when it comes, not an interval later."""
    server = start_redis()
    server.stop()
    collection.insert_one(provider(3))
    process = start_etl("run", ETL_REDIS__URL=server.url, ETL_RETRY__SECONDS="1")
    assert process.stderr
    # However long Python takes to start: it must have met the absent server before that comes.
    assert any("does not answer" in line for line in process.stderr)
    assert process.poll() is None
    server.start()
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        assert eventually(lambda: bool(client.exists(key(3))))
    server.stop()
    assert not eventually(lambda: process.poll() is not None, seconds=2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=8)  # sooner than Redis' time-out
    assert process.returncode == 0
    assert said.count("does not answer") <= 4 + 4  # a line when it begins, for each of the two jobs
    assert "Traceback" not in said


def test_a_process_that_slept_says_so(start_etl: StartEtl, redis_client: redis.Redis) -> None:
    """Runs that fell due meanwhile are counted as skipped, and the one that came instead as late."""
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
    said = ended(process)
    assert {"skipped"} <= {line["action"] for line in said}


def test_it_stops_between_two_batches(
    start_etl: StartEtl, typed: Etl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """In the middle of a cold start: the lease is given back, and the next cycle goes on there."""
    count, moment = 25_000, datetime.now(UTC) - timedelta(hours=1)  # of the last minutes, all is read again
    dates = [{"updated_at": moment + timedelta(milliseconds=number)} for number in range(count)]
    collection.insert_many([provider(number) | date for number, date in enumerate(dates)])
    process = start_etl("run", **every(1))
    assert eventually(lambda: bool(redis_client.hexists(f"{STATE_PREFIX}checkpoint", "scan_cursor")))
    ended(process, signal.SIGINT)
    assert not redis_client.exists(LEASE)
    assert not redis_client.exists("etl:last_sync:promptContent"), "it was done before it was stopped"
    cut = len(list(redis_client.scan_iter("config:api:*", count=5000)))
    assert 600 < cut < count
    report = typed("sync", "--json").json["collections"][0]
    assert 0 < report["records_processed"] < count
    assert len(list(redis_client.scan_iter("config:api:*", count=5000))) == count


def test_secrets_stay_out_of_the_log(start_etl: StartEtl, start_redis: StartRedis) -> None:
    """Of the settings, whatever goes wrong with them, in either form and in every detail."""
    server = start_redis(password="hunter2")
    wrong = server.url.replace("hunter2", "hunter3")
    for form in ("text", "json"):
        settings = every(1) | {"ETL_REDIS__URL": wrong, "ETL_LOG__FORMAT": form}
        process = start_etl("--verbose", "run", **settings)
        url = url_of(settings)
        assert eventually(lambda url=url: _refused(url))  # type: ignore[misc]
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "refuses" in said
        assert "hunter" not in said


def _refused(url: str) -> bool:
    try:
        return "refuses" in get(f"{url}/readyz").text
    except OSError:
        return False


def test_it_answers_over_http_what_the_command_line_says(
    start_etl: StartEtl, etl: Etl, collection: Collection[Document]
) -> None:
    """The status is that of `etl status --json`; it is ready after its first cycle."""
    collection.insert_one(provider(0))
    settings = every(60)
    start_etl("run", **settings)
    url = url_of(settings)
    assert eventually(lambda: is_ready(url))
    [over_http], [typed] = (
        answer.json["collections"] for answer in (get(f"{url}/status"), etl("status", "--json", **settings))
    )
    assert over_http.pop("seconds_since_success") <= typed.pop("seconds_since_success")
    assert over_http == typed
    assert over_http["last_cycle"]["records_processed"] == 1
    assert (
        'etl_documents_total{collection="promptContent",outcome="written"} 1.0' in get(f"{url}/metrics").text
    )
    [recent] = get(f"{url}/history").json["collections"]
    assert recent["runs"][0]["records_processed"] == 1
    assert get(f"{url}/status").json["daemon"]["cycle_seconds"] == 60
    assert get(f"{url}/").kind.startswith("text/html")


def test_a_port_that_is_taken_is_told_at_once(start_etl: StartEtl) -> None:
    """The second daemon on one machine needs a port of its own: one line, exit code 2."""
    settings = every(60)
    start_etl("run", **settings)
    assert eventually(lambda: is_ready(url_of(settings)))
    result = end_of(start_etl("run", **settings))
    assert (result.code, result.out) == (2, "")
    assert result.problems.count("\n") == 1
    assert f"cannot listen on 127.0.0.1:{settings['ETL_HTTP__PORT']}: Address already in use" in result.err


def test_its_lines_are_for_people_or_for_programs(
    start_etl: StartEtl, collection: Collection[Document]
) -> None:
    """As `log.format` says; each cycle has an id, and no line holds a document."""
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
    _, said = text.communicate(timeout=20)
    assert f" INFO listening: answering at {url_of(settings)}\n" in said
    assert "{" not in said
