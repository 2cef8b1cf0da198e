import json
from datetime import UTC, datetime

import pytest
import redis
from pymongo.collection import Collection

from etl.app import App
from etl.cache.keys import state_keys
from tests.factories import api
from tests.support.command import Etl
from tests.support.pipeline import NAME, sync
from tests.support.types import Document


@pytest.fixture
def three_runs(etl: Etl, collection: Collection[Document]) -> None:
    """Cycles that process 2, 0 and 1 documents."""
    for batch in (("a", "b"), (), ("c",)):
        for name in batch:
            collection.insert_one(api(name, datetime.now(UTC)))
        assert etl("sync").code == 0


@pytest.mark.usefixtures("three_runs")
def test_json_lists_the_newest_run_first(etl: Etl) -> None:
    """Each run with its start and the fields of its report."""
    answer = etl("history", "--json")
    assert (answer.code, answer.err) == (0, "")
    [of_collection] = json.loads(answer.out)["collections"]
    assert of_collection["collection"] == NAME
    assert [entry["records_processed"] for entry in of_collection["runs"]] == [1, 0, 2]
    assert [entry["mode"] for entry in of_collection["runs"]] == ["delta", "delta", "cold_start"]
    moments = [datetime.fromisoformat(entry["began"]) for entry in of_collection["runs"]]
    assert moments == sorted(moments, reverse=True)


@pytest.mark.usefixtures("three_runs")
def test_limit_keeps_the_newest_runs_and_is_at_least_one(etl: Etl) -> None:
    [of_collection] = json.loads(etl("history", NAME, "--limit", "2", "--json").out)["collections"]
    assert [entry["records_processed"] for entry in of_collection["runs"]] == [1, 0]
    assert etl("history", "--limit", "0").code == 2


@pytest.mark.usefixtures("three_runs")
def test_pipe_gets_a_plain_table_of_runs(etl: Etl) -> None:
    """A heading, one line for each run, and no chart."""
    out = etl("history").out
    assert len(out.splitlines()) == 5
    assert out.splitlines()[1].split() == ["began", "status", "mode", "records", "ms", "error"]
    assert not set("▁▂▃▄▅▆▇█") & set(out)


@pytest.mark.usefixtures("three_runs")
def test_terminal_gets_a_chart(etl: Etl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of records and milliseconds, the newest run at the right."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    records, milliseconds = etl("history").out.splitlines()[-2:]
    assert records == "records █▁▅  at most 2"
    assert milliseconds.startswith("ms ")
    assert "█" in milliseconds


def test_failed_run_shows_its_error(etl: Etl, redis_client: redis.Redis) -> None:
    redis_client.set(state_keys(NAME).deferred, "of the wrong type")
    assert etl("sync").code == 1
    out = etl("history").out
    assert "failed" in out
    assert "WRONGTYPE" in out


def test_empty_history_prints_a_hint(etl: Etl) -> None:
    assert etl("history").out == f"{NAME}\n  no run yet (try: etl sync)\n"


def test_history_of_an_unknown_collection_is_refused(etl: Etl) -> None:
    """The error lists the known ones."""
    answer = etl("history", "nonsense")
    assert answer.code == 2
    assert NAME in answer.err


def test_recent_has_runs_and_dead_letters(app: App, collection: Collection[Document]) -> None:
    """Dead letters are grouped by reason and fields, with the newest; a run does not repeat them."""
    moment = datetime(2025, 1, 15, tzinfo=UTC)
    bad = [{"_id": number, "updated_at": moment, "tipo": "unknown"} for number in range(30)]
    collection.insert_many([*bad, {"_id": "x", "updated_at": moment, "tipo": "integracion_api"}])
    sync(app)

    [found] = app.recent()

    assert found["collection"] == NAME
    [run] = found["runs"]
    assert (run["status"], run["dead_lettered"]) == ("ok", 31)
    assert "dead_letters" not in run
    dead = found["dead_letters"]
    assert dead["count"] == 31
    assert [one["count"] for one in dead["reasons"]] == [30, 1]
    assert dead["reasons"][0]["fields"] == ("tipo",)
    assert len(dead["newest"]) == 10
    assert dead["newest"][0].keys() >= {"id", "reason", "errors", "first_seen", "last_seen", "attempts"}


def test_thousands_of_dead_letters_are_read_in_small_steps(app: App, redis_client: redis.Redis) -> None:
    """Once each; no command takes Redis more than 2 ms."""
    letter = {"reason": "r", "errors": [], "first_seen": "a", "last_seen": "b", "attempts": 1}
    letters = {str(number): json.dumps(letter | {"id": str(number)}) for number in range(5000)}
    redis_client.hset(state_keys(NAME).dead_letters, mapping=letters)  # type: ignore[arg-type]
    redis_client.config_resetstat()

    [found] = app.recent()

    assert found["dead_letters"]["count"] == 5000
    commands = redis_client.info("commandstats")
    assert "cmdstat_hvals" not in commands
    assert commands["cmdstat_hscan"]["usec_per_call"] < 2000
