"""The application on the shared servers, each test on databases of its own."""

import json
from typing import Any

import pytest
from pymongo.database import Database

from etl.app import App
from etl.cli import run
from etl.demo import MongoServer
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
    """MongoDB's clock as the application sees it."""
    return Clock(monkeypatch)


@pytest.fixture
def doctor(
    mongod: MongoServer, database: Database[Document], redis_url: str, capsys: pytest.CaptureFixture[str]
) -> Doctor:
    """Runs the command on this test's databases, or on other servers."""

    def examine(*settings: str, mongo: str = mongod.uri, redis: str = redis_url) -> Diagnosis:
        places = (f"mongo.uri={mongo}", f"mongo.database={database.name}", f"redis.url={redis}")
        options = [word for setting in (*places, *settings) for word in ("--set", setting)]
        code = run([*options, "doctor", "--json"])
        answer = json.loads(capsys.readouterr().out)
        assert answer["healthy"] == (code == HEALTHY)
        return Diagnosis(code, answer["checks"])

    return examine


@pytest.fixture
def applied(open_app: OpenApp) -> Applied:
    """Apply what is in MongoDB; keyword arguments are settings of the collection."""

    def apply(**settings: Any) -> App:
        app = open_app(**settings)
        sync(app)
        return app

    return apply
