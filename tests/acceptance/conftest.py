import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from bson import json_util
from pymongo.collection import Collection
from pymongo.database import Database

from etl.demo import MongoServer
from tests.support.command import Result, Typed
from tests.support.security import as_user, create_user
from tests.support.types import Document

DATA = Path(__file__).parents[1] / "data"
LONG_ENOUGH = 60.0  # seconds for one command on a busy machine


Etl = Callable[..., Result]
StartEtl = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def environment(
    mongod: MongoServer, database: Database[Document], redis_url: str, redis_client: redis.Redis
) -> dict[str, str]:
    """The variables that point a command at this test's databases, and at no settings of the developer's.

    All commands run as the Redis user that SECURITY.md shows: it may do all that they need.
    """
    create_user(redis_client, "single server")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ETL_")}
    return inherited | {
        "ETL_MONGO__URI": mongod.uri,
        "ETL_MONGO__DATABASE": database.name,
        "ETL_REDIS__URL": as_user(redis_url),
        "ETL_HTTP__PORT": "0",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }


@pytest.fixture
def start_etl(environment: Mapping[str, str], tmp_path: Path) -> Iterator[StartEtl]:
    """Start a command as a process of its own, in an empty folder; it is gone when the test ends."""
    with ExitStack() as stack:

        def start(*arguments: str, **variables: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-m", "etl", *arguments],
                cwd=tmp_path,
                env={**environment, **variables},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def etl(start_etl: StartEtl) -> Etl:
    """Run a command to its end."""

    def run(*arguments: str, **variables: str) -> Result:
        return end_of(start_etl(*arguments, **variables))

    return run


@pytest.fixture
def typed(
    environment: Mapping[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    loggers_as_they_were: None,  # noqa: ARG001 (what a command configures ends with its test)
) -> Etl:
    """Run a command in this process, in an empty folder."""
    for name in os.environ.keys() - environment.keys():
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return Typed(environment, monkeypatch, capsys)


def end_of(process: "subprocess.Popen[str]") -> Result:
    """What a started command came to."""
    out, err = process.communicate(timeout=LONG_ENOUGH)
    return Result(process.returncode, out, err)


def interrupt(process: "subprocess.Popen[str]") -> Result:
    """Ctrl-C."""
    process.send_signal(signal.SIGINT)
    return end_of(process)


@pytest.fixture
def samples(collection: Collection[Document]) -> list[Document]:
    """The users' six sample documents, inserted as `promptContent`."""
    documents: list[Document] = json_util.loads((DATA / "sample_documents.json").read_text("utf-8"))
    collection.insert_many(documents)
    return documents


def contents(client: redis.Redis, keys: str = "*") -> dict[str, dict[str, Any]]:
    """Every key of Redis that fits the pattern: its type, its TTL in seconds, its value."""
    return {key: _content(client, key) for key in sorted(client.scan_iter(keys))}


def contract_keys(client: redis.Redis) -> dict[str, dict[str, Any]]:
    """The keys that the users' design names: all but the ETL's own."""
    return {
        key: content for key, content in contents(client).items() if not key.startswith(("{", "etl:record:"))
    }


def _content(client: redis.Redis, key: str) -> dict[str, Any]:
    read: dict[str, Callable[[], Any]] = {
        "hash": lambda: client.hgetall(key),
        "list": lambda: client.lrange(key, 0, -1),
        "set": lambda: client.smembers(key),
        "zset": lambda: client.zrange(key, 0, -1, withscores=True),
        "string": lambda: client.get(key),
    }
    kind = str(client.type(key))
    ttl = client.ttl(key)
    return {"type": kind, "ttl": None if ttl == -1 else ttl, "value": read[kind]()}
