"""Checks of MongoDB: connection, version, primary, role, index, types of the timestamps."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from etl.doctor.finding import Finding, note, ok, problem
from etl.errors import AccessDenied, EtlError
from etl.mongo.reader import COUNT_CAP, MongoReader
from etl.settings import CollectionSettings, Settings

OLDEST: Final = (4, 4, 2)
"""`allowDiskUse` of `find` is new in 4.4, the command `hello` in 4.4.2."""

_REMEDIES: Final[Mapping[str, str]] = {"fields": "etl try COLLECTION, after a correction of this expression"}
_CHECK_SETTINGS: Final = "etl config, and correct mongo.uri, mongo.database or collections"


def examine(settings: Settings, sources: Mapping[str, MongoReader]) -> Iterator[Finding]:
    """Check the server and each configured collection; stop after the connection if the server does not answer.

    If a collection cannot be read, its other checks are skipped.
    """
    server = next(iter(sources.values()))
    try:
        info = server.ask({"buildInfo": 1})
    except EtlError as error:
        yield problem("connection", "MongoDB", str(error), f"{_CHECK_SETTINGS}; is the server up?")
        return
    yield _connection(server)
    yield _version(info["version"], info["versionArray"])
    for name, source in sources.items():
        yield from _collection(settings.mongo.database, settings.collection(name), source)


def _connection(server: MongoReader) -> Finding:
    hello = server.ask({"hello": 1})
    if "setName" not in hello or hello["isWritablePrimary"]:
        return ok("connection", "MongoDB", "answers")
    return problem(
        "connection",
        "MongoDB",
        f"{hello['me']} is not the primary, and mongo.uri connects to this member only: its data may be stale,"
        " and documents cannot be read again with read concern linearizable",
        f"replace directConnection=true in mongo.uri by replicaSet={hello['setName']}",
    )


def _version(text: str, numbers: Sequence[int]) -> Finding:
    if tuple(numbers[:3]) >= OLDEST:
        return ok("version", "MongoDB", text)
    wanted = ".".join(map(str, OLDEST))
    return problem(
        "version",
        "MongoDB",
        f"{text} is not supported: {wanted} or newer is required",
        "docker compose up --build (it has MongoDB 7), or upgrade: https://www.mongodb.com/docs/manual/release-notes/",
    )


def _collection(database: str, settings: CollectionSettings, source: MongoReader) -> Iterator[Finding]:
    checks = {"role": _role, "fields": _fields, "index": _index, "dates": _dates}
    if not settings.fields:
        del checks["fields"]
    for check, run in checks.items():
        try:
            yield run(database, settings, source)
        except EtlError as error:
            denied = isinstance(error, AccessDenied)
            remedy = _grant(database, source) if denied else _REMEDIES.get(check, _CHECK_SETTINGS)
            yield problem(check, settings.name, str(error), remedy)
            if check in {"role", "fields"}:
                return


def _role(database: str, settings: CollectionSettings, source: MongoReader) -> Finding:
    """Reading one document requires the same right as reading all."""
    source.whole([None])
    try:
        _listed(settings.name, source)
    except AccessDenied:
        missing = "can be read, but not listed: a drop and re-creation of the collection cannot be noticed"
        return note("role", settings.name, f"{missing}; the role read on {database} suffices for both")
    return ok("role", settings.name, "can be read")


def _fields(_: str, settings: CollectionSettings, source: MongoReader) -> Finding:
    source.check_mapping()
    return ok("fields", settings.name, f"MongoDB accepts the expressions of {', '.join(settings.fields)}")


def _listed(collection: str, source: MongoReader) -> bool:
    command = {"listCollections": 1, "filter": {"name": collection}, "authorizedCollections": True}
    return bool(source.ask(command)["cursor"]["firstBatch"])


def _grant(database: str, source: MongoReader) -> str:
    users = source.ask({"connectionStatus": 1})["authInfo"]["authenticatedUsers"]
    if not users:
        return "export ETL_MONGO__URI=mongodb://USER:PASSWORD@HOST:PORT/?authSource=admin"
    home, user = users[0]["db"], users[0]["user"]
    role = f"[{{role: 'read', db: {database!r}}}]"
    return f"db.getSiblingDB({home!r}).grantRolesToUser({user!r}, {role})"


def _index(database: str, settings: CollectionSettings, source: MongoReader) -> Finding:
    source.prepare()
    name, why, remedy = source.index
    if name is not None:
        return ok("index", settings.name, name)
    text = f"{why}: every page reads the whole collection"
    if remedy is None:
        return note("index", settings.name, text)
    try:
        exists = _listed(settings.name, source)
    except AccessDenied:
        exists = True
    if not exists:
        text = f"not in the database {database}: misspelt, or without its index until it has documents"
    return problem("index", settings.name, text, remedy)


def _dates(database: str, settings: CollectionSettings, source: MongoReader) -> Finding:
    field = settings.timestamp_field
    if source.index.name is None:
        text = f"types of {field} not counted: that would read the whole collection without the index"
        return note("dates", settings.name, text)
    types = source.timestamp_types()
    if not types:
        return ok("dates", settings.name, f"{field} is a date in every document")
    total = sum(types.values())
    kinds = ", ".join(f"{count} {_KINDS.get(kind, kind)}" for kind, count in sorted(types.items()))
    others = f"{{$expr: {{$ne: [{{$type: '${field}'}}, 'date']}}}}"
    found = f"db.getSiblingDB({database!r}).getCollection({settings.name!r})"
    remedy = f"{found}.updateMany({others}, [{{$set: {{{field!r}: '$$NOW'}}}}])"
    if "." in field:  # if the path leads through an array, the update would set every member
        remedy = f"{found}.find({others}), and correct them, or choose another timestamp_field"
    return problem(
        "dates",
        settings.name,
        f"documents in which {field} is not a date: {total}{' or more' if total >= COUNT_CAP else ''} ({kinds});"
        " no cycle applies them",
        remedy,
    )


_KINDS: Final[Mapping[str, str]] = {"null": "missing or null"}
