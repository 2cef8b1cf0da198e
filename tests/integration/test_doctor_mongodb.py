"""The findings of `etl doctor` about MongoDB, on real servers; its remedies are run where possible."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import Code, Decimal128, MaxKey, MinKey, ObjectId
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.read_preferences import ReadPreference

from etl.demo import MongoServer
from etl.demo.process import Server
from etl.mongo.reader import MongoReader
from tests.support.diagnosis import HEALTHY, Doctor
from tests.support.pipeline import NAME
from tests.support.types import Document, StartMongo
from tests.support.waiting import eventually


@pytest.mark.parametrize(
    "unsuitable",
    [
        {},
        {"keys": ["updated_at"]},
        {"sparse": True},
        {"partialFilterExpression": {"tipo": "generacion"}},
        {"collation": {"locale": "es"}},
    ],
    ids=str,
)
def test_missing_or_unsuitable_index_is_a_finding(
    database: Database[Document], doctor: Doctor, unsuitable: dict[str, Any]
) -> None:
    """An unsuitable index does not contain every document in order. The remedy works beside it."""
    names = unsuitable.pop("keys", ["updated_at", "_id"])
    collection = database.create_collection(NAME)
    if unsuitable or names == ["updated_at"]:
        collection.create_index([(name, 1) for name in names], **unsuitable)

    remedy = doctor().remedy("index")

    assert remedy == (
        f"db.getSiblingDB('{database.name}').getCollection('{NAME}').createIndex("
        "{'updated_at': 1, '_id': 1}, {name: 'etl_updated_at', collation: {locale: 'simple'}})"
    )
    options: dict[str, Any] = {"name": "etl_updated_at", "collation": {"locale": "simple"}}
    collection.create_index([("updated_at", 1), ("_id", 1)], **options)
    assert doctor().code == HEALTHY


def test_suggested_index_has_the_simple_collation(database: Database[Document], doctor: Doctor) -> None:
    """Otherwise it would inherit the collation of the collection, and could not be used."""
    collection = database.create_collection(NAME, collation={"locale": "es"})
    collection.create_index([("updated_at", 1), ("_id", 1)])
    assert "locale: 'simple'" in doctor().remedy("index")

    options: dict[str, Any] = {"name": "etl_updated_at", "collation": {"locale": "simple"}}
    collection.create_index([("updated_at", 1), ("_id", 1)], **options)
    assert doctor().code == HEALTHY


def test_missing_collection_is_a_finding(doctor: Doctor) -> None:
    """Its name may be misspelt."""
    assert "createIndex" in doctor().remedy("index")
    assert "misspelt" in doctor().said("index")["text"]


def test_view_is_a_note(database: Database[Document], doctor: Doctor) -> None:
    """A view cannot have an index, so there is no remedy."""
    database["real"].insert_one({})
    database.command("create", NAME, viewOn="real", pipeline=[])
    diagnosis = doctor()
    assert (diagnosis.code, diagnosis.said("index")["level"]) == (HEALTHY, "note")
    assert "a view or a time-series collection" in diagnosis.said("index")["text"]


def test_time_series_collection_is_a_note(database: Database[Document], doctor: Doctor) -> None:
    """With and without an index, which would not be used."""
    collection = database.create_collection(NAME, timeseries={"timeField": "updated_at"})
    for _ in range(2):
        diagnosis = doctor()
        assert (diagnosis.code, diagnosis.said("index")["level"]) == (HEALTHY, "note")
        collection.create_index([("updated_at", 1), ("_id", 1)])


def test_hidden_index_is_a_finding(collection: Collection[Document], doctor: Doctor) -> None:
    """The remedy shows the index again."""
    hide = {"name": "updated_at_1__id_1", "hidden": True}
    collection.database.command({"collMod": NAME, "index": hide})
    assert doctor().remedy("index").endswith(".unhideIndex('updated_at_1__id_1')")
    collection.database.command({"collMod": NAME, "index": {**hide, "hidden": False}})
    assert doctor().code == HEALTHY


def test_user_without_the_role_read_is_a_finding(
    start_mongod: StartMongo, database: Database[Document], doctor: Doctor
) -> None:
    """The remedy names the user and grants the role."""
    server = start_mongod(password="secret")
    with MongoClient[Document](server.uri) as admin:
        admin[database.name][NAME].create_index([("updated_at", 1), ("_id", 1)])
        admin.admin.command("createUser", "reader", pwd="hunter2", roles=[])
        uri = f"mongodb://reader:hunter2@{server.address}/?replicaSet=rs0"

        diagnosis = doctor(mongo=uri)

        role = f"[{{role: 'read', db: '{database.name}'}}]"
        assert diagnosis.remedy("role") == f"db.getSiblingDB('admin').grantRolesToUser('reader', {role})"
        assert "hunter2" not in json.dumps(diagnosis.checks)
        granted = [{"role": "read", "db": database.name}]
        admin.admin.command("grantRolesToUser", "reader", roles=granted)
        assert doctor(mongo=uri).code == HEALTHY

    anonymous = doctor(mongo=f"mongodb://{server.address}/?replicaSet=rs0")
    assert anonymous.remedy("role").startswith("export ETL_MONGO__URI=mongodb://USER:PASSWORD@")
    wrong = doctor(mongo=f"mongodb://reader:hunter3@{server.address}/?replicaSet=rs0")
    assert "mongo.uri" in wrong.remedy("connection")
    assert "hunter3" not in json.dumps(wrong.checks)


@pytest.mark.parametrize("actions", [["find", "listIndexes"], ["find"]], ids=" ".join)
def test_privileges_on_one_collection_limit_the_checks(
    start_mongod: StartMongo,
    database: Database[Document],
    doctor: Doctor,
    actions: list[str],
) -> None:
    """Each limited check is a note, and the others run."""
    server = start_mongod(password="secret")
    with MongoClient[Document](server.uri) as admin:
        admin[database.name][NAME].insert_one({"updated_at": 5})
        resource = {"db": database.name, "collection": NAME}
        privileges = [{"resource": resource, "actions": actions}]
        admin.admin.command("createRole", "narrow", privileges=privileges, roles=[])
        admin.admin.command("createUser", "reader", pwd="hunter2", roles=["narrow"])
    diagnosis = doctor(mongo=f"mongodb://reader:hunter2@{server.address}/?replicaSet=rs0")
    assert diagnosis.said("role")["level"] == "note"
    assert "a drop and re-creation of the collection cannot be noticed" in diagnosis.said("role")["text"]
    if "listIndexes" in actions:
        assert "createIndex" in diagnosis.remedy("index")
    else:
        assert "denies access" in diagnosis.said("index")["text"]
        assert "grantRolesToUser('reader'" in diagnosis.remedy("index")
    assert diagnosis.said("dates")["level"] == "note"
    assert "clocks" in {check["check"] for check in diagnosis.checks}


class Member(MongoServer):
    """A `mongod` that is not initiated, to be added to a replica set."""

    def start(self) -> None:
        Server.start(self)


def test_direct_connection_to_a_secondary_is_a_finding(
    start_mongod: StartMongo, database: Database[Document], doctor: Doctor
) -> None:
    """The remedy connects to the primary."""
    primary = start_mongod()
    with Member() as member, MongoClient[Document](primary.uri) as client:
        client[database.name][NAME].create_index([("updated_at", 1), ("_id", 1)])
        config = client.admin.command("replSetGetConfig")["config"]
        config["members"].append({"_id": 1, "host": member.address, "priority": 0, "votes": 0})
        client.admin.command("replSetReconfig", config | {"version": config["version"] + 1})
        with MongoClient[Document](f"mongodb://{member.address}/?directConnection=true") as direct:
            assert eventually(lambda: direct.admin.command("hello")["secondary"])
            names = {"name": NAME}
            listed = direct.get_database(
                database.name, read_preference=ReadPreference.SECONDARY
            ).list_collection_names
            assert eventually(lambda: bool(listed(filter=names)))

        diagnosis = doctor(mongo=f"mongodb://{member.address}/?directConnection=true")
        [finding] = [one for one in diagnosis.findings if one["check"] == "connection"]
        assert (
            f"{member.address} is not the primary, and mongo.uri connects to this member only"
            in finding["text"]
        )
        assert "replace directConnection=true in mongo.uri by replicaSet=rs0" in finding["remedy"]
        assert doctor(mongo=f"mongodb://{member.address}/?replicaSet=rs0").code == HEALTHY


def test_dates_of_other_types_are_counted_by_type(collection: Collection[Document], doctor: Doctor) -> None:
    """The remedy replaces them by the current date."""
    others: list[Any] = ["2025-01-15", 1.5, 2, Decimal128("3"), None, ObjectId(), True, {"date": 1}, b"x"]
    others += [[], [datetime.now(UTC)], MinKey(), MaxKey(), Code("a")]
    collection.insert_many([{"updated_at": value} for value in others])
    collection.insert_many([{}, {"updated_at": datetime.now(UTC)}])

    diagnosis = doctor()

    remedy = diagnosis.remedy("dates")
    assert "documents in which updated_at is not a date: 15 (" in diagnosis.said("dates")["text"]
    for kind in (
        "3 number",
        "2 missing or null",
        "1 string",
        "1 objectId",
        "1 bool",
        "1 object",
        "1 binData",
        "2 array",
        "1 minKey",
        "1 maxKey",
        "1 javascript",
    ):
        assert kind in diagnosis.said("dates")["text"]
    criteria = "{$expr: {$ne: [{$type: '$updated_at'}, 'date']}}"
    assert f"updateMany({criteria}, [{{$set: {{'updated_at': '$$NOW'}}}}])" in remedy
    filter_ = {"$expr": {"$ne": [{"$type": "$updated_at"}, "date"]}}
    collection.update_many(filter_, [{"$set": {"updated_at": "$$NOW"}}])
    assert doctor().code == HEALTHY


def test_types_of_dates_are_not_counted_without_the_index(
    database: Database[Document], doctor: Doctor
) -> None:
    """Counting would read the whole collection."""
    database[NAME].insert_one({"updated_at": "text"})
    assert doctor().said("dates")["level"] == "note"


@pytest.mark.usefixtures("collection")
def test_mongodb_older_than_supported_is_a_finding(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is faked, because no old server is available."""
    ask = MongoReader.ask

    def older(self: MongoReader, command: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = ask(self, command)
        old = {"version": "4.2.24", "versionArray": [4, 2, 24, 0]}
        return {**answer, **old} if "buildInfo" in command else answer

    monkeypatch.setattr(MongoReader, "ask", older)
    assert doctor().remedy("version").startswith("docker compose up --build (it has MongoDB 7), or upgrade:")
