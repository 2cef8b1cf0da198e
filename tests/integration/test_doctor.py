"""Each finding is brought about on real servers; where what it says to type can be typed here, it is."""

import json
import re
import shlex
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
import redis
from bson import Code, Decimal128, MaxKey, MinKey, ObjectId
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.read_preferences import ReadPreference

from etl.cache.keys import state_keys
from etl.cli import run
from etl.demo import MongoServer
from etl.demo.process import Server
from etl.mongo.reader import Source
from tests.support.pipeline import NAME, Clock
from tests.support.types import Document, StartMongo, StartRedis
from tests.support.waiting import eventually

HEALTHY, FOUND = 0, 3
OWN = state_keys(NAME)


class Diagnosis(NamedTuple):
    """What `etl doctor --json` said."""

    code: int
    checks: list[dict[str, Any]]

    @property
    def findings(self) -> list[dict[str, Any]]:
        """Only what a person has to mend."""
        return [check for check in self.checks if check["level"] == "finding"]

    def said(self, check: str) -> dict[str, Any]:
        """What one check said of its one subject."""
        [said] = [one for one in self.checks if one["check"] == check and one["subject"] != "MongoDB"]
        return said

    def remedy(self, check: str) -> str:
        """What to type, of the only finding."""
        assert self.code == FOUND
        [finding] = self.findings
        assert finding["check"] == check
        return str(finding["remedy"])


Doctor = Callable[..., Diagnosis]


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


@pytest.mark.usefixtures("collection")
def test_a_healthy_set_up_passes(doctor: Doctor) -> None:
    """Nothing is found; that this Redis keeps nothing on disk is a note."""
    seen = doctor()
    assert (seen.code, seen.findings) == (HEALTHY, [])
    assert seen.said("persistence")["level"] == "note"
    assert {check["check"] for check in seen.checks} == {
        *("ttl", "connection", "version", "role", "index", "dates"),
        *("mode", "eviction", "persistence", "keys", "clocks"),
    }


def test_a_person_reads_what_to_type(
    doctor: Doctor, mongod: MongoServer, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Below the table of what is well, each finding has the line to type."""
    doctor()
    code = run(["--set", f"mongo.uri={mongod.uri}", "--set", f"redis.url={redis_url}", "doctor"])
    answer = capsys.readouterr()
    assert code == FOUND
    assert answer.err == ""
    assert re.search(r"^ok +connection +Redis +answers$", answer.out, re.MULTILINE)
    assert re.search(r"^  type: db\.getSiblingDB\('campaigns'\).+createIndex", answer.out, re.MULTILINE)


@pytest.mark.parametrize(
    "useless",
    [
        {},
        {"keys": ["updated_at"]},
        {"sparse": True},
        {"partialFilterExpression": {"tipo": "generacion"}},
        {"collation": {"locale": "es"}},
    ],
    ids=str,
)
def test_a_missing_index_is_found(
    database: Database[Document], doctor: Doctor, useless: dict[str, Any]
) -> None:
    """Also where one is there that does not hold every document in order; the command works then too."""
    names = useless.pop("keys", ["updated_at", "_id"])
    collection = database.create_collection(NAME)
    if useless or names == ["updated_at"]:
        collection.create_index([(name, 1) for name in names], **useless)

    typed = doctor().remedy("index")

    assert typed == (
        f"db.getSiblingDB('{database.name}').getCollection('{NAME}').createIndex("
        "{'updated_at': 1, '_id': 1}, {name: 'etl_updated_at', collation: {locale: 'simple'}})"
    )
    options: dict[str, Any] = {"name": "etl_updated_at", "collation": {"locale": "simple"}}
    collection.create_index([("updated_at", 1), ("_id", 1)], **options)
    assert doctor().code == HEALTHY


def test_the_index_of_a_collection_with_a_collation_of_its_own(
    database: Database[Document], doctor: Doctor
) -> None:
    """It inherits that collation, and is of use only when it is made as the doctor says."""
    collection = database.create_collection(NAME, collation={"locale": "es"})
    collection.create_index([("updated_at", 1), ("_id", 1)])
    assert "locale: 'simple'" in doctor().remedy("index")

    options: dict[str, Any] = {"name": "etl_updated_at", "collation": {"locale": "simple"}}
    collection.create_index([("updated_at", 1), ("_id", 1)], **options)
    assert doctor().code == HEALTHY


def test_a_collection_that_is_not_there_is_found(doctor: Doctor) -> None:
    """It may be misspelt."""
    assert "createIndex" in doctor().remedy("index")
    assert "misspelt" in doctor().said("index")["text"]


def test_a_view_is_found(database: Database[Document], doctor: Doctor) -> None:
    """It has no index of its own to read by, and none can be created: there is nothing to type."""
    database["real"].insert_one({})
    database.command("create", NAME, viewOn="real", pipeline=[])
    seen = doctor()
    assert (seen.code, seen.said("index")["level"]) == (HEALTHY, "note")
    assert "a view or a time-series collection" in seen.said("index")["text"]


def test_a_time_series_collection_is_not_advised_an_index(
    database: Database[Document], doctor: Doctor
) -> None:
    """With one that was created all the same, and without: it does not help."""
    collection = database.create_collection(NAME, timeseries={"timeField": "updated_at"})
    for _ in range(2):
        seen = doctor()
        assert (seen.code, seen.said("index")["level"]) == (HEALTHY, "note")
        collection.create_index([("updated_at", 1), ("_id", 1)])


def test_a_hidden_index_is_found(collection: Collection[Document], doctor: Doctor) -> None:
    """What it says to type brings it back."""
    hide = {"name": "updated_at_1__id_1", "hidden": True}
    collection.database.command({"collMod": NAME, "index": hide})
    assert doctor().remedy("index").endswith(".unhideIndex('updated_at_1__id_1')")
    collection.database.command({"collMod": NAME, "index": {**hide, "hidden": False}})
    assert doctor().code == HEALTHY


def test_a_user_without_the_role_read_is_found(
    start_mongod: StartMongo, database: Database[Document], doctor: Doctor
) -> None:
    """The user is named in what to type; granted the role, nothing is left to say."""
    server = start_mongod(password="secret")
    with MongoClient[Document](server.uri) as admin:
        admin[database.name][NAME].create_index([("updated_at", 1), ("_id", 1)])
        admin.admin.command("createUser", "reader", pwd="hunter2", roles=[])
        uri = f"mongodb://reader:hunter2@{server.address}/?replicaSet=rs0"

        seen = doctor(mongo=uri)

        role = f"[{{role: 'read', db: '{database.name}'}}]"
        assert seen.remedy("role") == f"db.getSiblingDB('admin').grantRolesToUser('reader', {role})"
        assert "hunter2" not in json.dumps(seen.checks)
        granted = [{"role": "read", "db": database.name}]
        admin.admin.command("grantRolesToUser", "reader", roles=granted)
        assert doctor(mongo=uri).code == HEALTHY

    anonymous = doctor(mongo=f"mongodb://{server.address}/?replicaSet=rs0")
    assert anonymous.remedy("role").startswith("export ETL_MONGO__URI=mongodb://USER:PASSWORD@")
    wrong = doctor(mongo=f"mongodb://reader:hunter3@{server.address}/?replicaSet=rs0")
    assert "mongo.uri" in wrong.remedy("connection")
    assert "hunter3" not in json.dumps(wrong.checks)


@pytest.mark.parametrize("actions", [["find", "listIndexes"], ["find"]], ids=" ".join)
def test_rights_on_one_collection(
    start_mongod: StartMongo,
    database: Database[Document],
    doctor: Doctor,
    actions: list[str],
) -> None:
    """Each check says what it could not look at, and the others are made all the same."""
    server = start_mongod(password="secret")
    with MongoClient[Document](server.uri) as admin:
        admin[database.name][NAME].insert_one({"updated_at": 5})
        resource = {"db": database.name, "collection": NAME}
        privileges = [{"resource": resource, "actions": actions}]
        admin.admin.command("createRole", "narrow", privileges=privileges, roles=[])
        admin.admin.command("createUser", "reader", pwd="hunter2", roles=["narrow"])
    seen = doctor(mongo=f"mongodb://reader:hunter2@{server.address}/?replicaSet=rs0")
    assert seen.said("role")["level"] == "note"
    assert "a drop and re-creation of the collection cannot be noticed" in seen.said("role")["text"]
    if "listIndexes" in actions:
        assert "createIndex" in seen.remedy("index")
    else:
        assert "denies access" in seen.said("index")["text"]
        assert "grantRolesToUser('reader'" in seen.remedy("index")
    assert seen.said("dates")["level"] == "note"
    assert "clocks" in {check["check"] for check in seen.checks}


class Member(MongoServer):
    """A `mongod` that waits to be taken into a replica set."""

    def start(self) -> None:
        """Start it."""
        Server.start(self)


def test_a_connection_to_a_secondary_alone_is_found(
    start_mongod: StartMongo, database: Database[Document], doctor: Doctor
) -> None:
    """What it says to type finds the primary."""
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

        seen = doctor(mongo=f"mongodb://{member.address}/?directConnection=true")
        [finding] = [one for one in seen.findings if one["check"] == "connection"]
        assert (
            f"{member.address} is not the primary, and mongo.uri connects to this member only"
            in finding["text"]
        )
        assert "replace directConnection=true in mongo.uri by replicaSet=rs0" in finding["remedy"]
        assert doctor(mongo=f"mongodb://{member.address}/?replicaSet=rs0").code == HEALTHY


def test_dates_of_other_types_are_counted_by_type(collection: Collection[Document], doctor: Doctor) -> None:
    """As no delta can find them; what to type dates them now, which is when they were last written."""
    others: list[Any] = ["2025-01-15", 1.5, 2, Decimal128("3"), None, ObjectId(), True, {"date": 1}, b"x"]
    others += [[], [datetime.now(UTC)], MinKey(), MaxKey(), Code("a")]
    collection.insert_many([{"updated_at": value} for value in others])
    collection.insert_many([{}, {"updated_at": datetime.now(UTC)}])

    seen = doctor()

    typed = seen.remedy("dates")
    assert "updated_at is not a date in 15 documents" in seen.said("dates")["text"]
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
        assert kind in seen.said("dates")["text"]
    criteria = "{$expr: {$ne: [{$type: '$updated_at'}, 'date']}}"
    assert f"updateMany({criteria}, [{{$set: {{'updated_at': '$$NOW'}}}}])" in typed
    filter_ = {"$expr": {"$ne": [{"$type": "$updated_at"}, "date"]}}
    collection.update_many(filter_, [{"$set": {"updated_at": "$$NOW"}}])
    assert doctor().code == HEALTHY


def test_without_the_index_the_types_of_dates_are_not_counted(
    database: Database[Document], doctor: Doctor
) -> None:
    """That would read the whole collection."""
    database[NAME].insert_one({"updated_at": "text"})
    assert doctor().said("dates")["level"] == "note"


@pytest.mark.usefixtures("collection")
def test_a_mongodb_older_than_supported_is_found(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says it is older, in the application's own eyes, as no old server is at hand."""
    ask = Source.ask

    def older(self: Source, command: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = ask(self, command)
        old = {"version": "4.2.24", "versionArray": [4, 2, 24, 0]}
        return {**answer, **old} if "buildInfo" in command else answer

    monkeypatch.setattr(Source, "ask", older)
    assert doctor().remedy("version").startswith("docker compose up --build (it has MongoDB 7), or upgrade:")


@pytest.mark.usefixtures("collection")
@pytest.mark.parametrize("ahead", [5, -5])
def test_clock_skew_is_found(doctor: Doctor, clock: Clock, ahead: int) -> None:
    """MongoDB's clock is moved in the application's own eyes, as a server's cannot be."""
    clock.forward(ahead)
    seen = doctor()
    assert "set-ntp" in seen.remedy("clocks")
    assert f"MongoDB {ahead:+}.0 s" in seen.said("clocks")["text"]


@pytest.mark.usefixtures("collection")
@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_an_eviction_policy_that_may_drop_the_checkpoint_is_found(
    start_redis: StartRedis, doctor: Doctor, policy: str
) -> None:
    """What it says to type is typed here, and mends it."""
    server = start_redis(args=("--maxmemory", "100mb", "--maxmemory-policy", policy))

    typed = doctor(redis=server.url).remedy("eviction")

    assert typed.startswith("redis-cli CONFIG SET maxmemory-policy volatile-ttl")
    with redis.Redis.from_url(server.url) as client:
        client.execute_command(*typed.removeprefix("redis-cli ").split()[:4])
    assert doctor(redis=server.url).code == HEALTHY


@pytest.mark.usefixtures("collection")
@pytest.mark.parametrize(
    "arguments",
    [
        ("--maxmemory", "0", "--maxmemory-policy", "allkeys-lru"),
        ("--maxmemory", "100mb", "--maxmemory-policy", "noeviction"),
        ("--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru"),
    ],
    ids=" ".join,
)
def test_what_cannot_drop_the_checkpoint_is_well(
    start_redis: StartRedis, doctor: Doctor, arguments: tuple[str, ...]
) -> None:
    """Without a limit nothing is evicted, and the checkpoint has no TTL to be evicted by."""
    assert doctor(redis=start_redis(args=arguments).url).code == HEALTHY


@pytest.fixture
def confined(start_redis: StartRedis) -> Callable[[str], str]:
    """The address of a Redis, for a user who may do all but these."""

    def start(denied: str) -> str:
        server = start_redis()
        with redis.Redis.from_url(server.url) as client:
            client.execute_command("ACL", "SETUSER", "etl", "on", ">pw", "~*", "+@all", *denied.split())
        return f"redis://etl:pw@{server.address}/0"

    return start


@pytest.mark.usefixtures("collection")
def test_a_redis_that_denies_info_is_not_down(confined: Callable[[str], str], doctor: Doctor) -> None:
    """What cannot be looked at is a note; the other checks are made."""
    seen = doctor(redis=confined("-info"))
    assert seen.code == HEALTHY
    by_check = {one["check"]: one for one in seen.checks if one["subject"] == "Redis"}
    assert (by_check["connection"]["level"], by_check["connection"]["text"]) == ("ok", "answers")
    assert by_check["version"]["level"] == "note"
    assert "version, mode and eviction not checked: Redis at " in by_check["version"]["text"]
    assert "'info'" in by_check["version"]["text"]
    assert seen.said("keys")["level"] == seen.said("clocks")["level"] == "ok"
    assert "no data survives a restart" in by_check["persistence"]["text"]


@pytest.mark.usefixtures("collection")
def test_each_check_of_redis_stands_alone(confined: Callable[[str], str], doctor: Doctor) -> None:
    """A user who may not ask for the time, the settings or the state is told so three times."""
    seen = doctor(redis=confined("-info -config -time"))
    assert seen.code == HEALTHY
    notes = {(one["check"], one["subject"]) for one in seen.checks if one["level"] == "note"}
    assert notes == {("version", "Redis"), ("persistence", "Redis"), ("clocks", "Redis")}
    clocks = [one["text"] for one in seen.checks if one["check"] == "clocks"]
    assert any("MongoDB" in text for text in clocks)


@pytest.mark.usefixtures("collection")
def test_a_redis_that_lets_us_say_nothing_is_found(confined: Callable[[str], str], doctor: Doctor) -> None:
    """Not even PING: the line says that it refuses, not that it is away."""
    [finding] = doctor(redis=confined("-@all")).findings
    assert finding["check"] == "connection"
    assert "refuses: " in finding["text"]


@pytest.mark.usefixtures("collection")
def test_a_managed_redis_is_not_blamed_for_refusing_config(start_redis: StartRedis, doctor: Doctor) -> None:
    """A note says what could not be seen; the eviction policy can, without that command."""
    arguments = (
        "--rename-command",
        "CONFIG",
        "",
        "--maxmemory",
        "100mb",
        "--maxmemory-policy",
        "allkeys-lru",
    )

    seen = doctor(redis=start_redis(args=arguments).url)

    assert seen.remedy("eviction")
    assert seen.said("persistence")["level"] == "note"
    assert "CONFIG GET is refused" in seen.said("persistence")["text"]


@pytest.mark.usefixtures("collection")
@pytest.mark.parametrize("arguments", [("--appendonly", "yes"), ("--save", "900", "1")], ids=" ".join)
def test_a_redis_that_keeps_its_data_is_well(
    start_redis: StartRedis, doctor: Doctor, arguments: tuple[str, ...]
) -> None:
    """By an append-only file or by snapshots."""
    assert doctor(redis=start_redis(args=arguments).url).said("persistence")["level"] == "ok"


@pytest.mark.usefixtures("collection")
def test_a_replica_is_found(start_redis: StartRedis, doctor: Doctor) -> None:
    """It takes no writes; the primary is named."""
    server = start_redis(args=("--replicaof", "127.0.0.1", "1"))
    assert doctor(redis=server.url).remedy("mode") == "export ETL_REDIS__URL=redis://127.0.0.1:1/0"


@pytest.mark.usefixtures("collection")
def test_a_cluster_that_does_not_serve_all_slots_is_found(start_redis: StartRedis, doctor: Doctor) -> None:
    """As one that is away."""
    [finding] = doctor(redis=start_redis(args=("--cluster-enabled", "yes")).url).findings
    assert finding["check"] == "connection"
    assert "slots" in finding["text"]


@pytest.mark.usefixtures("collection")
@pytest.mark.parametrize("key", [OWN.deferred, OWN.published, OWN.queues, OWN.backfill])
def test_a_key_of_the_wrong_type_is_found(redis_client: redis.Redis, doctor: Doctor, key: str) -> None:
    """What it says to type is typed here, mends it, and loses nothing."""
    redis_client.set(key, "somebody's")

    typed = doctor().remedy("keys")

    _, *command = shlex.split(typed)
    assert command == ["RENAME", key, f"{key}:moved-away"]
    redis_client.rename(*command[1:])
    assert redis_client.get(f"{key}:moved-away") == "somebody's"
    assert doctor().code == HEALTHY


@pytest.mark.usefixtures("collection")
def test_keys_that_may_not_be_looked_at_are_a_note(start_redis: StartRedis, doctor: Doctor) -> None:
    """It names what is missing, and the other checks are made."""
    server = start_redis()
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "etl", "on", ">secret", "~*", "+@all", "-type")
    seen = doctor(redis=server.url.replace("redis://", "redis://etl:secret@"))
    assert (seen.code, seen.said("keys")["level"]) == (HEALTHY, "note")
    assert "not checked" in seen.said("keys")["text"]
    assert "clocks" in {check["check"] for check in seen.checks}


@pytest.mark.usefixtures("collection")
def test_a_queue_of_the_wrong_type_is_found(redis_client: redis.Redis, doctor: Doctor) -> None:
    """The queues are known from the collection that feeds them."""
    redis_client.sadd(OWN.queues, "queue:ai_generation:alta")
    redis_client.set("queue:ai_generation:alta", "somebody's")
    assert "queue:ai_generation:alta" in doctor().remedy("keys")


@pytest.mark.usefixtures("collection")
def test_a_life_shorter_than_the_cycle_is_found(doctor: Doctor) -> None:
    """Where the settings took the refresh interval away."""
    setting = "families={'mcp:server:status': {refresh_seconds: null}}"
    assert "refresh_seconds: 240" in doctor(setting).remedy("ttl")


def test_servers_that_are_away_are_findings_of_their_own(doctor: Doctor) -> None:
    """Each with its address; the checks that need them are left out, and nothing raises."""
    seen = doctor(
        "mongo.timeout_seconds=0.2",
        mongo="mongodb://127.0.0.1:1/?directConnection=true",
        redis="redis://127.0.0.1:1/0",
    )
    assert seen.code == FOUND
    assert [(finding["check"], finding["subject"]) for finding in seen.findings] == [
        *(("connection", "MongoDB"), ("connection", "Redis")),
    ]
    assert all("127.0.0.1:1" in finding["text"] for finding in seen.findings)
