"""The reader on real servers: pages, projections, read concerns, cuts, identity."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import bson
import pytest
from bson import Code, Decimal128, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient, monitoring
from pymongo.collection import Collection
from pymongo.database import Database

from etl.demo import MongoServer
from etl.demo.process import Server
from etl.errors import ConfigurationError
from etl.mongo.reader import MongoReader
from schemas.codec import UNDEFINED, RawValue, document_of
from schemas.position import FIRST, LAST, at
from tests.support.failpoint import fail_command
from tests.support.reading import INDEX, NOON, all_ids, dated, ids, pages, source
from tests.support.types import Document, StartMongo


def test_types_of_timestamps_are_counted(collection: Collection[Any]) -> None:
    """All that are no date, also arrays of dates, by their name in MongoDB."""
    values: list[Any] = [MinKey(), MaxKey(), Code("a"), Code("a", {}), None, 5, 5.5, Decimal128("5"), "a", {}]
    values += [[], [NOON], [NOON, 5], [5], b"", ObjectId(), True, Timestamp(1, 1), Regex("a"), NOON]
    collection.insert_many([{"updated_at": value} for value in values])
    undefined = document_of([(b"updated_at", RawValue(UNDEFINED, b""))])
    collection.insert_many([{}, RawBSONDocument(undefined)])
    counted = source(collection).timestamp_types()
    assert counted == {
        "minKey": 1,
        "maxKey": 1,
        "javascript": 1,
        "javascriptWithScope": 1,
        "null": 2,
        "number": 3,
        "string": 1,
        "object": 1,
        "array": 4,
        "binData": 1,
        "objectId": 1,
        "bool": 1,
        "timestamp": 1,
        "regex": 1,
        "undefined": 1,
    }


@pytest.mark.parametrize("indexed", [True, False])
def test_waited_is_the_age_of_the_oldest_document_after_a_position(
    database: Database[Document], *, indexed: bool
) -> None:
    """Also with an array of dates; documents dated in the future do not count."""
    collection = database["promptContent"]
    if indexed:
        collection.create_index(INDEX)
    now = datetime.now(UTC)
    moments: list[Any] = [now - timedelta(hours=5), now - timedelta(hours=1), now + timedelta(1), Code("a")]
    collection.insert_many([{"updated_at": moment} for moment in moments])
    reader = source(collection)
    start, end = (at(round((now - timedelta(hours=hours)).timestamp() * 1000)) for hours in (3, 0.5))
    assert reader.waited(start) == pytest.approx(3600, abs=60)
    assert (reader.waited(end), reader.waited(LAST)) == (0, 0)
    if indexed:
        collection.insert_one({"updated_at": [now - timedelta(hours=2)]})
        assert reader.waited(start) == pytest.approx(7200, abs=60)


ARRAYS: Sequence[Any] = (
    lambda number: {"meta": [{"at": NOON + timedelta(milliseconds=number)}]},
    lambda number: {"meta": {"at": [NOON + timedelta(milliseconds=number), NOON + timedelta(days=1)]}},
    lambda number: {"meta": [{"at": 5}, {"x": number}, 7, []]},
    lambda _: {"meta": []},
    lambda _: {"meta": {"at": []}},
    lambda number: {"meta": {"at": [[NOON + timedelta(milliseconds=number)]]}},
)


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("make", ARRAYS)
def test_pages_advance_over_timestamp_paths_through_arrays(
    database: Database[Document],
    monkeypatch: pytest.MonkeyPatch,
    make: Any,
    limit: int,
    *,
    indexed: bool,
) -> None:
    """Pages of such documents are not longer than others, and hide no other documents."""
    monkeypatch.setattr("etl.mongo.reader._UNINDEXED_PAGE", limit)
    collection = database["promptContent"]
    if indexed:
        collection.create_index([("meta.at", 1), ("_id", 1)])
    collection.insert_many([{"_id": number} | make(number) for number in range(20)])
    plain = [NOON - timedelta(1), NOON + timedelta(milliseconds=10), NOON + timedelta(2), None]
    collection.insert_many([{"_id": 100 + n, "meta": {"at": moment}} for n, moment in enumerate(plain)])
    reader = source(collection, "meta.at")
    assert (reader.index.name is not None) == indexed

    read = [ids(page) for page in pages(reader, limit)]
    assert {*range(20), *range(100, 104)} == {document_id for page in read for document_id in page}
    assert max(map(len, read)) <= limit
    assert [one for page in read for one in page if one >= 100] == [103, 100, 101, 102]


def test_requested_fields_are_read_only(collection: Collection[Document]) -> None:
    """With `_id` and timestamp; by page, `fetch` and `of_kind`, with and without the index."""
    collection.insert_one(dated(1, tipo="a", provider_name="p", nota="x" * 100))
    for _ in range(2):
        reader = source(collection, fields=("provider_name", "tipo"))
        found = [reader.page(FIRST, LAST, 10).documents, reader.fetch([1]), next(reader.of_kind({}, 10))]
        for [raw] in found:
            assert bson.decode(raw).keys() == {"_id", "updated_at", "tipo", "provider_name"}
        collection.drop_indexes()


@pytest.mark.parametrize("field", ["metadata.when", "other.deep.when"])
def test_timestamp_inside_a_requested_field_is_read(database: Database[Document], field: str) -> None:
    """MongoDB refuses a field and a part of it in one projection (31249)."""
    collection = database["promptContent"]
    first, *path = field.split(".")
    value: Any = NOON
    for name in reversed(path):
        value = {name: value}
    collection.insert_one({"_id": 1, first: value | {"x": 1}, "nota": 1})
    for _ in range(2):
        reader = source(collection, field, ("metadata", "tipo"))
        page = reader.page(FIRST, LAST, 10)
        assert page.last is not None
        assert page.last.ms == 1_736_942_400_000
        assert bson.decode(page.documents[0]).keys() == {"_id", first}
        collection.create_index([(field, 1), ("_id", 1)])


def test_page_ends_with_a_reply_of_mongodb(collection: Collection[Document]) -> None:
    """MongoDB limits a reply to 16 MB: the page is shorter, complete, and leaves no cursor open."""
    collection.insert_many([dated(number, nota="x" * size) for number, size in enumerate(SIZES)])
    reader = source(collection)
    assert [ids(page) for page in pages(reader, 100)] == [[0, 1], [2, 3], [4]]
    status = collection.database.command("serverStatus")
    assert status["metrics"]["cursor"]["open"]["total"] == 0


MB = 1_000_000


SIZES = (10, 16 * MB, 4 * MB, 5 * MB, 1 * MB)


def test_command_is_retried_once_after_a_lost_connection(collection: Collection[Document]) -> None:
    """Like the commands that the driver retries itself."""
    collection.insert_one(dated(1))
    reader = source(collection)
    with fail_command(collection.database.client, "find", closeConnection=True) as failure:
        assert ids(reader.page(FIRST, LAST, 10).documents) == [1]
        assert failure.injected() == 1


class ReadConcerns(monitoring.CommandListener):
    """The read concern of each `find`, and the number of `_id`s in it."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Record a `find` by `_id`."""
        if event.command_name == "find" and "_id" in event.command["filter"]:
            level = event.command["readConcern"]["level"]
            self.seen.append((level, len(event.command["filter"]["_id"]["$in"])))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Do nothing."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Do nothing."""


def test_fetch_uses_linearizable_reads(mongod: MongoServer, collection: Collection[Document]) -> None:
    """A deposed primary would still answer with read concern majority. At most 500 `_id`s are sent at once."""
    collection.insert_many([dated(number) for number in range(501)])
    concerns = ReadConcerns()
    with MongoClient[Document](mongod.uri, event_listeners=[concerns]) as client:
        reader = MongoReader(client, collection.database.name, "promptContent")
        assert ids(reader.fetch([*range(501)])) == [*range(501)]
    assert concerns.seen == [("linearizable", 500), ("linearizable", 1)]


class Standalone(MongoServer):
    """A `mongod` without replica set."""

    def start(self) -> None:
        Server.start(self)

    def _options(self) -> list[str]:
        options = super()._options()
        at_set = options.index("--replSet")
        return options[:at_set] + options[at_set + 2 :]


def test_standalone_server_is_read_with_majority() -> None:
    """It refuses read concern linearizable."""
    concerns = ReadConcerns()
    with Standalone() as server:
        address = f"mongodb://{server.address}"
        with MongoClient[Document](address, event_listeners=[concerns]) as client:
            client["database"]["promptContent"].insert_one(dated(1))
            assert ids(MongoReader(client, "database", "promptContent").fetch([1])) == [1]
    assert concerns.seen == [("majority", 1)]


def test_cuts_divide_a_collection_evenly(collection: Collection[Document]) -> None:
    """They are ascending positions of documents, at most as many as asked for."""
    moments = [None, *(NOON + timedelta(seconds=number) for number in range(9))]
    collection.insert_many([{"_id": ObjectId(), "updated_at": one} for one in moments * 2_000])
    reader = source(collection)

    cuts = reader.cuts(10)
    assert 8 <= len(cuts) <= 10
    assert all(one.order() < other.order() for one, other in pairwise(cuts))
    sizes = [len(reader.page(one, other, 20_000).documents) for one, other in pairwise([FIRST, *cuts, LAST])]
    assert sum(sizes) + len(cuts) == 20_000
    assert max(sizes) < 6_000

    assert len(reader.cuts(1000)) <= 20
    collection.drop_indexes()
    assert source(collection).cuts(10) == []


def test_small_collection_has_no_cuts(collection: Collection[Document]) -> None:
    """Nor has one whose documents have several entries in the index."""
    reader = source(collection)
    assert reader.cuts(10) == []
    collection.insert_many([{"updated_at": [NOON, number]} for number in range(2_000)])
    assert reader.cuts(10) == []


def test_identity_changes_when_a_collection_is_created_again(collection: Collection[Document]) -> None:
    """Writes and renames do not change it."""
    reader = source(collection)
    before = reader.identity()
    assert before is not None
    collection.insert_one(dated(1))
    assert reader.identity() == before
    collection.rename("elsewhere")
    assert reader.identity() is None
    collection.database["elsewhere"].rename("promptContent")
    assert reader.identity() == before
    collection.drop()
    collection.insert_one(dated(1))
    assert reader.identity() not in {None, before}


def test_identity_is_unknown_without_the_right_to_list_collections(
    start_mongod: StartMongo, database: Database[Document]
) -> None:
    """Privileges on one collection are enough to read it."""
    server = start_mongod(password="secret")
    with MongoClient[Document](server.uri) as admin:
        admin[database.name]["promptContent"].insert_one(dated(1))
        resource = {"db": database.name, "collection": "promptContent"}
        privileges = [{"resource": resource, "actions": ["find", "listIndexes"]}]
        admin.admin.command("createRole", "narrow", privileges=privileges, roles=[])
        admin.admin.command("createUser", "reader", pwd="hunter2", roles=["narrow"])
    with MongoClient[Document](f"mongodb://reader:hunter2@{server.address}/?replicaSet=rs0") as client:
        reader = source(client[database.name]["promptContent"])
        assert (reader.identity(), all_ids(reader, 10)) == (None, [1])


def test_page_with_its_end_before_its_begin_is_empty(collection: Collection[Document]) -> None:
    """A scan may jump to the present, beyond its own end."""
    collection.insert_one(dated(1))
    assert source(collection).page(at(5), at(4), 10) == ([], None, False)


def test_whole_documents_are_returned_as_stored(collection: Collection[Any]) -> None:
    raw = RawBSONDocument(bson.encode(dated(1, a={"b": [1, "x", None]})))
    collection.insert_one(raw)
    assert source(collection).page(FIRST, LAST, 10).documents == [raw.raw]


def test_sharded_cluster_is_refused_unless_allowed(
    collection: Collection[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`is_mongos` is faked, because no `mongos` is available; the commands are checked, not a shard."""
    collection.insert_many([dated(number) for number in range(30)])
    client, name = collection.database.client, collection.database.name
    monkeypatch.setattr(MongoClient, "is_mongos", True)
    with pytest.raises(ConfigurationError, match=r"mongo\.allow_sharded"):
        MongoReader(client, name, collection.name).prepare()
    reader = MongoReader(client, name, collection.name, allow_sharded=True)
    assert reader.prepare()
    collection.database.command("profile", 2)
    found = [bson.decode(raw)["_id"] for page in pages(reader, 7) for raw in page]
    collection.database.command("profile", 0)
    assert found == [*range(30)]
    asked = [*collection.database["system.profile"].find({"command.min": {"$exists": True}})]
    assert asked
    assert all(one["command"]["sort"] == {"updated_at": 1, "_id": 1} for one in asked)
    assert all(one["docsExamined"] <= 8 and not one.get("hasSortStage") for one in asked)
