"""A replica set whose primary steps down, is killed, or is rolled back, beside a daemon and a backfill."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import pytest
import redis
from pymongo import MongoClient, monitoring
from pymongo.collection import Collection
from pymongo.write_concern import WriteConcern

from etl.app import App, BackfillOrder
from etl.backfill.executors import processes
from etl.model.report import Report
from etl.model.scan import Bounds
from tests.support.command import StartEtl
from tests.support.daemons import HISTORY, Process, ended, every, key, provider
from tests.support.pipeline import NAME, OpenApp, sync
from tests.support.redis_dump import held
from tests.support.replica_set import Member, ReplicaSet
from tests.support.truth import truth
from tests.support.types import Document
from tests.support.waiting import eventually

pytestmark = pytest.mark.timed

_MAJORITY = WriteConcern(w="majority", j=True)
_ONE = WriteConcern(w=1, j=True)
_DOCUMENTS = 2_000
_MOVED, _LOST = 100_000, 200_000  # numbers of documents that moved, and of those that are rolled back


@pytest.fixture
def documents(replica_set: ReplicaSet) -> Iterator[Collection[Document]]:
    """A collection with write concern majority."""
    with replica_set.client() as client:
        client.drop_database("campaigns")
        documents = client["campaigns"].get_collection(NAME, write_concern=_MAJORITY)
        documents.create_index([("updated_at", 1), ("_id", 1)])
        documents.insert_many([{"_id": n, **provider(n)} for n in range(_DOCUMENTS)])
        yield documents


class Scene(NamedTuple):
    """A replica set, its documents, and a daemon that has run a cycle."""

    replica_set: ReplicaSet
    documents: Collection[Document]
    client: redis.Redis
    daemon: Process
    open_app: Callable[[], App]

    def wait_for_cycles(self, number: int) -> None:
        """Wait until the daemon has run `number` more cycles."""
        expected = self.client.llen(HISTORY) + number
        assert eventually(lambda: self.client.llen(HISTORY) >= expected, 60)

    def backfill_through(self, fault: Callable[[], Member]) -> Member:
        """Inject a fault during a backfill, beside daemon and writer; returns the former primary."""
        stop, written, injected = threading.Event(), list[int](), list[Member]()

        def write() -> None:
            while not stop.wait(0.05):
                number = len(written)
                self.documents.insert_one({"_id": _DOCUMENTS + number, **provider(_DOCUMENTS + number)})
                self.documents.replace_one({"_id": number}, provider(_MOVED + number))
                written.append(number)

        def inject(report: Report) -> None:
            if report.records_processed > 300 and not injected:
                injected.append(fault())

        writing = threading.Thread(target=write)
        writing.start()
        with self.open_app() as app:
            report = app.backfill(NAME, BackfillOrder(executors=processes(2)), inject)
        [old] = injected
        assert report.status == "ok", report.error
        if not old.is_running:
            old.start()
        assert eventually(lambda: len(written) > 10)
        stop.set()
        writing.join()
        assert self.replica_set.primary() is not old
        return old

    def check(self) -> None:
        """Check that Redis has all of MongoDB after two cycles, and nothing else after a repair."""
        self.wait_for_cycles(2)
        ended(self.daemon)
        expected = truth(self.documents)
        contents = held(self.client)
        assert {key for key, value in expected.items() if contents.get(key) != value} == set()
        with self.open_app() as app:
            app.verify(NAME, repair=True)
        assert held(self.client) == expected


@pytest.fixture
def scene(
    replica_set: ReplicaSet,
    documents: Collection[Document],
    open_app: OpenApp,
    redis_client: redis.Redis,
    start_etl: StartEtl,
) -> Scene:
    """A daemon with a cycle a second, and small pages, so that a backfill takes long."""
    redis_client.flushdb()
    servers = {"ETL_MONGO__URI": replica_set.uri, "ETL_MONGO__DATABASE": documents.database.name}
    scene = Scene(
        *(replica_set, documents, redis_client),
        daemon=start_etl("run", **servers, **every(1)),
        open_app=partial(
            open_app,
            mongo=replica_set.uri,
            database=documents.database.name,
            patience=20,
            settings={"lease": {"seconds": 2}},
        ),
    )
    scene.wait_for_cycles(1)
    return scene


def test_daemon_and_backfill_survive_a_step_down(scene: Scene) -> None:
    """Nothing is skipped, and no key is left over."""
    scene.backfill_through(scene.replica_set.step_down)
    scene.check()


def test_daemon_and_backfill_survive_a_killed_primary(scene: Scene) -> None:

    def kill() -> Member:
        primary = scene.replica_set.primary()
        primary.kill()
        return primary

    scene.backfill_through(kill)
    scene.check()


def test_writes_that_are_rolled_back_never_reach_redis(scene: Scene) -> None:
    """Writes of a primary without a majority."""
    primary = scene.replica_set.cut_off()
    with scene.replica_set.direct(primary) as client:
        without_majority = client[scene.documents.database.name].get_collection(NAME, write_concern=_ONE)
        without_majority.insert_one({"_id": "lost", **provider(_LOST)})
        without_majority.replace_one({"_id": _DOCUMENTS - 1}, provider(_LOST + 1))
        without_majority.delete_one({"_id": _DOCUMENTS - 2})
        assert without_majority.find_one({"_id": "lost"})
    scene.wait_for_cycles(2)
    assert not scene.client.exists(key(_LOST), key(_LOST + 1)), "a write without majority was read"

    def depose() -> Member:
        scene.replica_set.depose(primary)
        return primary

    scene.backfill_through(depose)
    assert eventually(lambda: scene.replica_set.has_rolled_back(primary), 60), "nothing was rolled back"
    scene.check()
    assert not scene.client.exists(key(_LOST), key(_LOST + 1))
    assert scene.client.exists(key(_DOCUMENTS - 1), key(_DOCUMENTS - 2)) == 2


class ReadMembers(monitoring.CommandListener):
    """The ports of the members from which pages, and documents by `_id`, were read."""

    def __init__(self) -> None:
        self.pages: set[int | None] = set()
        self.by_id: set[int | None] = set()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Record the port."""
        if event.command_name == "find" and event.command.get("limit") != 1:
            seen = self.pages if "min" in event.command else self.by_id
            seen.add(event.connection_id[1])

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Nothing to do."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Nothing to do."""


def test_backfills_and_verifications_read_pages_from_secondaries(
    replica_set: ReplicaSet,
    documents: Collection[Document],
    open_app: OpenApp,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With `readPreference` in the URI. Pages of a cycle and reads by `_id` come from the primary."""
    primary = replica_set.primary().port
    uri = f"{replica_set.uri}&readPreference=secondary"
    original = MongoClient.__init__
    listener = ReadMembers()

    def listening(self: MongoClient[Document], *args: object, **options: object) -> None:
        original(self, *args, **{**options, "event_listeners": [listener]})  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(MongoClient, "__init__", listening)
        with open_app(mongo=uri, database=documents.database.name, page_size=500) as app:
            sync(app)
            assert listener.pages == {primary}
            listener.pages.clear()
            documents.insert_one({"_id": -1, **provider(_LOST)})  # a lagging member is waited for
            app.backfill(NAME, BackfillOrder(Bounds(since=0), dry_run=True), lambda _: None)
            assert listener.pages
            assert primary not in listener.pages
            listener.pages.clear()
            redis_client.delete(key(7))
            assert app.verify(NAME, repair=True).repaired == 1
            assert listener.pages - {primary}
            assert listener.by_id == {primary}
            sync(app)
    assert held(redis_client) == truth(documents)
