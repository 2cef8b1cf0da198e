"""The turn among several daemons, and who is away, on real servers."""

import time
from collections.abc import Iterator

import pytest
import redis
from pymongo.database import Database

import etl.app
from etl.app import App
from etl.demo import MongoServer
from etl.settings import Settings
from tests.support.types import Document

NAME, INTERVAL = "promptContent", 2.0


@pytest.fixture
def app(mongod: MongoServer, database: Database[Document], redis_url: str) -> Iterator[App]:
    """One with an interval of two seconds; which daemon it is, `this_is` says."""
    settings = {
        "mongo": {"uri": mongod.uri, "database": database.name},
        "redis": {"url": redis_url},
        "schedule": {"cycle_seconds": int(INTERVAL)},
    }
    with App(Settings.model_validate(settings)) as opened:
        yield opened


def this_is(monkeypatch: pytest.MonkeyPatch, daemon: str) -> None:
    """Go on as that daemon."""
    monkeypatch.setattr(etl.app, "this_process", lambda: daemon)


def test_one_has_the_turn_and_the_others_know_when_it_is_due(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks first has it; it is free only shortly before it is due again."""
    this_is(monkeypatch, "a:1")
    assert app.take_turn(NAME) == 0
    this_is(monkeypatch, "b:1")
    due = app.take_turn(NAME)
    assert INTERVAL - 0.5 < due <= INTERVAL
    time.sleep(0.5)
    assert app.take_turn(NAME) < due - 0.4


def test_the_holder_keeps_it_also_when_it_came_late(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was late is no reason to miss the next one; the others wait a whole interval again."""
    this_is(monkeypatch, "a:1")
    assert app.take_turn(NAME) == 0
    time.sleep(0.5)
    assert app.take_turn(NAME) == 0
    this_is(monkeypatch, "b:1")
    assert app.take_turn(NAME) > INTERVAL - 0.5


def test_another_has_it_when_the_holder_does_not_come(
    app: App, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the holder is due; the one that was dead then stands by."""
    this_is(monkeypatch, "a:1")
    assert app.take_turn(NAME) == 0
    this_is(monkeypatch, "b:1")
    time.sleep(app.take_turn(NAME))
    assert app.take_turn(NAME) == 0
    this_is(monkeypatch, "a:1")
    assert app.take_turn(NAME) > 0
    assert redis_client.get("{etl:last_sync:promptContent}:turn") == "b:1"


def test_nobody_is_away(app: App) -> None:
    """Both answer."""
    assert app.away() == {}


def test_both_are_away() -> None:
    """Each is told, with its address."""
    settings = {
        "mongo": {"uri": "mongodb://127.0.0.1:1/?directConnection=true", "timeout_seconds": 0.2},
        "redis": {"url": "redis://127.0.0.1:1/0"},
    }
    with App(Settings.model_validate(settings)) as app:
        away = app.away()
    assert away.keys() == {"mongodb", "redis"}
    assert all("127.0.0.1:1 does not answer" in problem for problem in away.values())
