"""MongoDB: the connection, the version, the member, the role, the index, the types of the dates."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from etl.doctor.finding import Finding, note, well, wrong
from etl.errors import AccessDenied, EtlError
from etl.model.index import Index
from etl.mongo.reader import COUNT_CAP
from etl.settings import CollectionSettings, Settings

OLDEST: Final = (4, 4, 2)
"""`allowDiskUse` on a find came with 4.4, and the command `hello` with 4.4.2."""

_REMEDIES: Final[Mapping[str, str]] = {"fields": "etl try COLLECTION, after a correction of this expression"}
_CHECK_SETTINGS: Final = "etl config, and correct mongo.uri, mongo.database or collections"


class Source(Protocol):
    """One collection, as the doctor looks at it: see `etl.mongo.reader.Source`."""

    @property
    def index(self) -> Index:
        """The index that `prepare` found, or why there is none."""
        ...

    def ask(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer to one command on the database."""
        ...

    def whole(self, ids: Sequence[Any]) -> list[bytes]:
        """Documents by `_id`, with all their fields."""
        ...

    def check_mapping(self) -> None:
        """Have MongoDB parse the mapping."""
        ...

    def prepare(self) -> bool:
        """Look for the index."""
        ...

    def timestamp_types(self) -> Counter[str]:
        """How many documents have a timestamp of each type but date."""
        ...

    def identity(self) -> str | None:
        """The UUID of the collection."""
        ...

    def clock(self) -> int:
        """The server's clock, in milliseconds since the epoch."""
        ...


def examine(settings: Settings, sources: Mapping[str, Source]) -> Iterator[Finding]:
    """The server and each configured collection; nothing more when the server is away.

    Each check of a collection stands alone; but where nothing of it can be read, that is the one finding.
    """
    server = next(iter(sources.values()))
    try:
        info = server.ask({"buildInfo": 1})
    except EtlError as error:
        yield wrong("connection", "MongoDB", str(error), f"{_CHECK_SETTINGS}; is the server up?")
        return
    yield _connection(server)
    yield _version(info["version"], info["versionArray"])
    for name, source in sources.items():
        yield from _collection(settings.mongo.database, settings.collection(name), source)


def _connection(server: Source) -> Finding:
    hello = server.ask({"hello": 1})
    if "setName" not in hello or hello["isWritablePrimary"]:
        return well("connection", "MongoDB", "answers")
    return wrong(
        "connection",
        "MongoDB",
        f"{hello['me']} is no primary, and the only member that is asked: what it has may be old,"
        " and documents that are in doubt cannot be read again",
        f"take directConnection=true out of mongo.uri, or put replicaSet={hello['setName']} in its place",
    )


def _version(text: str, numbers: Sequence[int]) -> Finding:
    if tuple(numbers[:3]) >= OLDEST:
        return well("version", "MongoDB", text)
    wanted = ".".join(map(str, OLDEST))
    return wrong(
        "version",
        "MongoDB",
        f"{text} is not supported, it takes {wanted} or newer",
        "docker compose up --build (it has MongoDB 7), or upgrade: https://www.mongodb.com/docs/manual/release-notes/",
    )


def _collection(database: str, settings: CollectionSettings, source: Source) -> Iterator[Finding]:
    checks = {"role": _role, "fields": _fields, "index": _index, "dates": _dates}
    if not settings.fields:
        del checks["fields"]
    for check, look in checks.items():
        try:
            yield look(database, settings, source)
        except EtlError as error:
            denied = isinstance(error, AccessDenied)
            remedy = _grant(database, source) if denied else _REMEDIES.get(check, _CHECK_SETTINGS)
            yield wrong(check, settings.name, str(error), remedy)
            if check in {"role", "fields"}:
                return


def _role(database: str, settings: CollectionSettings, source: Source) -> Finding:
    """A read of one document needs the same right as one of many."""
    source.whole([None])
    try:
        _listed(settings.name, source)
    except AccessDenied:
        missing = "can be read, but not listed: that it was dropped and created again will go unnoticed"
        return note("role", settings.name, f"{missing}; the role read on {database} is enough for both")
    return well("role", settings.name, "can be read")


def _fields(_: str, settings: CollectionSettings, source: Source) -> Finding:
    source.check_mapping()
    return well("fields", settings.name, f"MongoDB accepts the expressions of {', '.join(settings.fields)}")


def _listed(collection: str, source: Source) -> bool:
    command = {"listCollections": 1, "filter": {"name": collection}, "authorizedCollections": True}
    return bool(source.ask(command)["cursor"]["firstBatch"])


def _grant(database: str, source: Source) -> str:
    users = source.ask({"connectionStatus": 1})["authInfo"]["authenticatedUsers"]
    if not users:
        return "export ETL_MONGO__URI=mongodb://USER:PASSWORD@HOST:PORT/?authSource=admin"
    home, user = users[0]["db"], users[0]["user"]
    role = f"[{{role: 'read', db: {database!r}}}]"
    return f"db.getSiblingDB({home!r}).grantRolesToUser({user!r}, {role})"


def _index(database: str, settings: CollectionSettings, source: Source) -> Finding:
    source.prepare()
    name, problem, remedy = source.index
    if name is not None:
        return well("index", settings.name, name)
    text = f"{problem}: every page reads the whole collection"
    if remedy is None:
        return note("index", settings.name, text)
    try:
        known = _listed(settings.name, source)
    except AccessDenied:
        known = True
    if not known:
        text = f"not in the database {database}: misspelt, or without its index until it has documents"
    return wrong("index", settings.name, text, remedy)


def _dates(database: str, settings: CollectionSettings, source: Source) -> Finding:
    field = settings.timestamp_field
    if source.index.name is None:
        text = f"types of {field} not counted: without the index that reads the whole collection"
        return note("dates", settings.name, text)
    types = source.timestamp_types()
    if not types:
        return well("dates", settings.name, f"{field} is a date everywhere")
    total = sum(types.values())
    kinds = ", ".join(f"{count} {_KINDS.get(kind, kind)}" for kind, count in sorted(types.items()))
    others = f"{{$expr: {{$ne: [{{$type: '${field}'}}, 'date']}}}}"
    found = f"db.getSiblingDB({database!r}).getCollection({settings.name!r})"
    remedy = f"{found}.updateMany({others}, [{{$set: {{{field!r}: '$$NOW'}}}}])"
    if "." in field:  # of a path through an array that would set each member
        remedy = f"{found}.find({others}), and mend them, or name another timestamp_field"
    return wrong(
        "dates",
        settings.name,
        f"{field} is no date in {total}{' or more' if total >= COUNT_CAP else ''} documents ({kinds}):"
        " no delta applies them",
        remedy,
    )


_KINDS: Final[Mapping[str, str]] = {"null": "missing or null"}
