"""The command line as a process, and the users' sample documents."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import redis
from pymongo.collection import Collection

from tests import factories
from tests.support.command import Etl, InProcess
from tests.support.security import as_user, create_user
from tests.support.types import Document


@pytest.fixture
def environment(environment: dict[str, str], redis_client: redis.Redis, redis_url: str) -> dict[str, str]:
    """Commands run as the Redis user of SECURITY.md."""
    create_user(redis_client, "single server")
    return environment | {"ETL_REDIS__URL": as_user(redis_url)}


@pytest.fixture
def etl_in_process(
    environment: Mapping[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    restore_loggers: None,  # noqa: ARG001 (what a command configures ends with its test)
) -> Etl:
    """Run a command in this process, in an empty folder."""
    for name in os.environ.keys() - environment.keys():
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return InProcess(environment, monkeypatch, capsys)


@pytest.fixture
def samples(collection: Collection[Document]) -> list[Document]:
    """The users' six sample documents, inserted as `promptContent`."""
    documents = factories.samples()
    collection.insert_many(documents)
    return documents
