"""The application on the shared servers; each test has its own databases."""

from typing import Any

import pytest
from pymongo.database import Database

from etl.app import App
from etl.backfill import coordinator
from etl.cli import run
from etl.demo import MongoServer
from tests.support.command import Etl, Result
from tests.support.diagnosis import HEALTHY, Diagnosis, Doctor
from tests.support.pipeline import Clock, OpenApp, sync
from tests.support.types import Document
from tests.support.verification import Applied


@pytest.fixture
def app(open_app: OpenApp) -> App:
    """The application with the default settings of a collection."""
    return open_app()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of MongoDB as the application sees it."""
    return Clock(monkeypatch)


@pytest.fixture
def etl(
    mongod: MongoServer, database: Database[Document], redis_url: str, capsys: pytest.CaptureFixture[str]
) -> Etl:
    """Run a command in this process on the databases of this test, or on other servers."""

    def command(*arguments: str, mongo: str = mongod.uri, redis: str = redis_url) -> Result:
        options = (f"mongo.uri={mongo}", f"mongo.database={database.name}", f"redis.url={redis}")
        code = run([*(word for place in options for word in ("--set", place)), *arguments])
        return Result(code, *capsys.readouterr())

    return command


@pytest.fixture
def doctor(etl: Etl) -> Doctor:
    """Run `etl doctor` with these settings."""

    def examine(*settings: str, **servers: str) -> Diagnosis:
        options = (word for setting in settings for word in ("--set", setting))
        answer = etl(*options, "doctor", "--json", **servers)
        assert answer.json["healthy"] == (answer.code == HEALTHY)
        return Diagnosis(answer.code, answer.json["checks"])

    return examine


@pytest.fixture
def applied(open_app: OpenApp) -> Applied:
    """Run a cycle on a new application; keyword arguments are settings of the collection."""

    def apply(**settings: Any) -> App:
        app = open_app(**settings)
        sync(app)
        return app

    return apply


@pytest.fixture
def one_page_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few documents give several tasks of a backfill."""
    monkeypatch.setattr(coordinator, "TASK_SECONDS", 0)
