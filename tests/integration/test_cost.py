"""The cost of a cycle depends on its delta, not on the size of the collection."""

from collections.abc import Iterator

import pytest
from pymongo import MongoClient, monitoring
from pymongo.collection import Collection
from pymongo.database import Database

from etl.app import App
from tests.factories import api
from tests.support.pipeline import Clock, OpenApp, sync
from tests.support.types import Document, ProxyTo, StartRedis

TO_MONGODB = ["listIndexes", "find", "listCollections", "hello", "find", "listCollections", "find", "find"]
"""An empty delta: the index and whether it serves, the identity of the collection, the clock, one page, the identity
again, the unreachable documents before and after the dates."""

TO_REDIS = 10
"""An empty delta: acquire the lease, look for state of version 0.1, read state, deferrals and clock; record the
page, read the deferrals again and the primaries, finish, release the lease."""


class Commands(monitoring.CommandListener):
    """The commands that a client sends, without the handshake of its connections."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.names.append(event.command_name)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Do nothing."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Do nothing."""


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Iterator[Commands]:
    """The commands that the application sends to MongoDB."""
    listener = Commands()
    original = MongoClient.__init__

    def listening(self: MongoClient[Document], *args: object, **options: object) -> None:
        original(self, *args, **{**options, "event_listeners": [listener]})  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(MongoClient, "__init__", listening)
        yield listener


@pytest.mark.parametrize("size", [10, 5_000])
def test_empty_delta_needs_a_fixed_number_of_round_trips(
    open_app: OpenApp,
    collection: Collection[Document],
    start_redis: StartRedis,
    proxy_to: ProxyTo,
    clock: Clock,
    commands: Commands,
    size: int,
) -> None:
    """For any size of the collection."""
    collection.insert_many([api(f"p{number}", clock.ago(9000)) for number in range(size)])
    redis_server = start_redis()
    proxy = proxy_to(redis_server)
    with open_app(redis=proxy.through(redis_server.url)) as app:
        sync(app)
        sync(app)
        commands.names.clear()
        proxy.forget()
        assert sync(app).records_processed == 0
        assert commands.names == TO_MONGODB
        # The lease may have to load its scripts again.
        assert TO_REDIS <= proxy.round_trips <= TO_REDIS + 2


@pytest.mark.parametrize("size", [1_000, 20_000])
def test_small_delta_examines_only_its_documents(
    collection: Collection[Document], database: Database[Document], app: App, clock: Clock, size: int
) -> None:
    """According to the profiler of MongoDB."""
    for start in range(0, size, 1000):
        collection.insert_many([api(f"p{start + n}", clock.ago(9000)) for n in range(1000)])
    sync(app)
    collection.insert_many([api(f"new{number}", clock.now()) for number in range(20)])
    database.command("profile", 2, filter={"appName": "promptcontent-etl"})
    try:
        assert sync(app).records_processed == 20
    finally:
        database.command("profile", 0)
    wanted = {"op": True, "docsExamined": True}
    profiled = list(database["system.profile"].find({"ns": collection.full_name}, wanted))
    assert {entry["op"] for entry in profiled} >= {"query"}
    assert sum(entry.get("docsExamined", 0) for entry in profiled) <= 25
