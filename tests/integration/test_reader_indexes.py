"""The reader on real servers: indexes that are missing or go, and collections of other sorts."""

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database

from schemas.position import FIRST, LAST
from tests.support.reading import INDEX, all_ids, dated, ids, pages, source
from tests.support.types import Document, StartMongo
from tests.support.waiting import eventually

NAME = "updated_at_1__id_1"


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the reader warns of."""
    caplog.set_level(logging.WARNING, "etl.reader")
    return caplog


def test_without_the_index_a_warning_says_how_to_create_it(
    database: Database[Document],
) -> None:
    """The documents come in order all the same; with the index there is nothing to say."""
    collection = database["promptContent"]
    collection.insert_many([dated(number) for number in range(5)])
    reader = source(collection)
    assert all_ids(reader, 2) == [*range(5)]
    said = reader.index.warning or ""
    assert "every page reads the whole collection; in mongosh: db.getSiblingDB(" in said
    assert "createIndex({'updated_at': 1, '_id': 1}, {name: 'etl_updated_at'" in said
    collection.create_index(INDEX)
    assert source(collection).index == (NAME, "", None)
    assert source(collection).index.warning is None


def test_an_index_that_is_being_built_is_not_read_by(
    start_mongod: StartMongo,
) -> None:
    """The server lists it already; reading does without until it is ready, and no advice is given."""
    server = start_mongod()
    with MongoClient[Document](server.uri) as client, ThreadPoolExecutor(1) as pool:
        collection = client["database"]["promptContent"]
        collection.insert_many([dated(number) for number in range(5)])
        hang = {"configureFailPoint": "hangAfterStartingIndexBuild"}
        client.admin.command({**hang, "mode": "alwaysOn"})
        building = pool.submit(collection.create_index, INDEX)
        try:
            assert eventually(lambda: len(collection.index_information()) == 2)
            reader = source(collection)
            assert (reader.index.name, all_ids(reader, 2), reader.unreachable()) == (None, [*range(5)], 0)
            said = reader.index.warning or ""
            assert f"its index {NAME} cannot be used, probably as it is still being built" in said
            assert "createIndex" not in said
        finally:
            client.admin.command({**hang, "mode": "off"})
        building.result()
        assert source(collection).index.name == NAME


def test_a_hidden_index_is_not_read_by(
    collection: Collection[Document],
) -> None:
    """The warning says what brings it back: creating it would not."""
    collection.insert_many([dated(number) for number in range(5)])
    change = {"collMod": "promptContent", "index": {"name": NAME, "hidden": True}}
    collection.database.command(change)
    reader = source(collection)
    assert (reader.index.name, all_ids(reader, 2)) == (None, [*range(5)])
    said = reader.index.warning or ""
    assert f".getCollection('promptContent').unhideIndex('{NAME}')" in said


@pytest.mark.parametrize("how", ["dropped", "hidden"])
def test_an_index_dropped_between_pages_is_done_without(
    collection: Collection[Document], warnings: pytest.LogCaptureFixture, how: str
) -> None:
    """The pages go on where they were, without it; one warning says so, however many pages are left."""
    collection.insert_many([dated(number) for number in range(9)])
    reader = source(collection)
    first = reader.page(FIRST, LAST, 2)
    assert first.last is not None
    if how == "dropped":
        collection.drop_index(NAME)
    else:
        hide = {"name": NAME, "hidden": True}
        collection.database.command({"collMod": "promptContent", "index": hide})

    rest = [document_id for page in pages(reader, 2, first.last) for document_id in ids(page)]
    assert ids(first.documents) + rest == [*range(9)]
    assert reader.unreachable() == 0
    assert (len(warnings.messages), reader.index.name) == (1, None)


def test_an_index_replaced_between_pages_is_used_at_once(
    collection: Collection[Document], warnings: pytest.LogCaptureFixture
) -> None:
    """The new one is read by at once, whatever its name, and there is nothing to say."""
    collection.insert_many([dated(number) for number in range(4)])
    reader = source(collection)
    collection.drop_index(NAME)
    collection.create_index(INDEX, name="other")
    assert all_ids(reader, 2) == [*range(4)]
    assert (reader.index.name, warnings.messages) == ("other", [])


@pytest.mark.parametrize("indexed", [False, True])
def test_a_time_series_collection_is_read_by_a_sort(database: Database[Document], *, indexed: bool) -> None:
    """With an index that MongoDB lets a person create, and without; no warning advises one."""
    series = {"timeField": "updated_at", "metaField": "provider_name"}
    collection = database.create_collection("promptContent", timeseries=series)
    if indexed:
        collection.create_index(INDEX)
    collection.insert_many([dated(number, provider_name=f"p{number % 3}") for number in range(7)])
    reader = source(collection, fields=("provider_name",))
    assert all_ids(reader, 3) == [*range(7)]
    assert ids(reader.fetch([3, 5, 99])) == [3, 5]
    assert (reader.unreachable(), reader.cuts(5), reader.identity()) == (0, [], None)
    assert reader.waited(FIRST) > 1_000_000
    said = reader.index.warning or ""
    assert "a view or a time-series collection cannot be read by an index" in said
    assert "createIndex" not in said


def test_a_view_is_read_by_a_sort(collection: Collection[Document]) -> None:
    """It has no indexes of its own, and no UUID."""
    collection.insert_many([dated(number) for number in range(5)])
    collection.database.create_collection("latest", viewOn="promptContent")
    reader = source(collection.database["latest"])
    assert all_ids(reader, 2) == [*range(5)]
    assert (reader.index.name, reader.identity(), ids(reader.fetch([2]))) == (None, None, [2])


def test_a_clustered_collection_is_read_by_its_index(database: Database[Document]) -> None:
    """It has no index on `_id` beside the documents themselves."""
    clustered = {"key": {"_id": 1}, "unique": True}
    collection = database.create_collection("promptContent", clusteredIndex=clustered)
    collection.insert_many([dated(number) for number in range(5)])
    assert "createIndex" in (source(collection).index.remedy or "")
    collection.create_index(INDEX)
    reader = source(collection)
    assert (reader.index.name, all_ids(reader, 2)) == (NAME, [*range(5)])
