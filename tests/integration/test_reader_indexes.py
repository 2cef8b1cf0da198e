"""The reader on real servers: missing and removed indexes, views, and other kinds of collections."""

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
    """The warnings of the reader."""
    caplog.set_level(logging.WARNING, "etl.reader")
    return caplog


def test_missing_index_gives_a_warning_with_its_command(
    database: Database[Document],
) -> None:
    """The documents are read in order nevertheless."""
    collection = database["promptContent"]
    collection.insert_many([dated(number) for number in range(5)])
    reader = source(collection)
    assert all_ids(reader, 2) == [*range(5)]
    warning = reader.index.warning or ""
    assert "every page reads the whole collection; in mongosh: db.getSiblingDB(" in warning
    assert "createIndex({'updated_at': 1, '_id': 1}, {name: 'etl_updated_at'" in warning
    collection.create_index(INDEX)
    assert source(collection).index == (NAME, "", None)
    assert source(collection).index.warning is None


def test_index_that_is_being_built_is_not_used(
    start_mongod: StartMongo,
) -> None:
    """The server lists it already. The warning suggests no command."""
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
            warning = reader.index.warning or ""
            assert f"its index {NAME} cannot be used, probably as it is still being built" in warning
            assert "createIndex" not in warning
        finally:
            client.admin.command({**hang, "mode": "off"})
        building.result()
        assert source(collection).index.name == NAME


def test_hidden_index_is_not_used(
    collection: Collection[Document],
) -> None:
    """The warning has the command that shows it again; creating it would not help."""
    collection.insert_many([dated(number) for number in range(5)])
    change = {"collMod": "promptContent", "index": {"name": NAME, "hidden": True}}
    collection.database.command(change)
    reader = source(collection)
    assert (reader.index.name, all_ids(reader, 2)) == (None, [*range(5)])
    warning = reader.index.warning or ""
    assert f".getCollection('promptContent').unhideIndex('{NAME}')" in warning


@pytest.mark.parametrize("how", ["dropped", "hidden"])
def test_index_dropped_or_hidden_between_pages_is_not_needed(
    collection: Collection[Document], warnings: pytest.LogCaptureFixture, how: str
) -> None:
    """The pages continue without it, with one warning."""
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


def test_index_replaced_between_pages_is_used_at_once(
    collection: Collection[Document], warnings: pytest.LogCaptureFixture
) -> None:
    """Whatever its name, and without a warning."""
    collection.insert_many([dated(number) for number in range(4)])
    reader = source(collection)
    collection.drop_index(NAME)
    collection.create_index(INDEX, name="other")
    assert all_ids(reader, 2) == [*range(4)]
    assert (reader.index.name, warnings.messages) == ("other", [])


@pytest.mark.parametrize("indexed", [False, True])
def test_time_series_collection_is_read_with_a_sort(database: Database[Document], *, indexed: bool) -> None:
    """With and without an index; no warning suggests one."""
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
    warning = reader.index.warning or ""
    assert "a view or a time-series collection cannot be read by an index" in warning
    assert "createIndex" not in warning


def test_view_is_read_with_a_sort(collection: Collection[Document]) -> None:
    """It has no index and no UUID."""
    collection.insert_many([dated(number) for number in range(5)])
    collection.database.create_collection("latest", viewOn="promptContent")
    reader = source(collection.database["latest"])
    assert all_ids(reader, 2) == [*range(5)]
    assert (reader.index.name, reader.identity(), ids(reader.fetch([2]))) == (None, None, [2])


def test_clustered_collection_is_read_with_its_index(database: Database[Document]) -> None:
    """It has no separate index on `_id`."""
    clustered = {"key": {"_id": 1}, "unique": True}
    collection = database.create_collection("promptContent", clusteredIndex=clustered)
    collection.insert_many([dated(number) for number in range(5)])
    assert "createIndex" in (source(collection).index.remedy or "")
    collection.create_index(INDEX)
    reader = source(collection)
    assert (reader.index.name, all_ids(reader, 2)) == (NAME, [*range(5)])
