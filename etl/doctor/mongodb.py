"""MongoDB: the connection, the version, the role, the index, the types of the dates."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from etl.doctor.finding import Finding, note, well, wrong
from etl.errors import EtlError
from etl.settings import CollectionSettings, Settings

OLDEST: Final = (4, 4, 2)
"""`allowDiskUse` on a find came with 4.4, and the command `hello` with 4.4.2."""

COUNT_CAP: Final = 10_000
"""Counting documents whose timestamp is of one type stops here."""

_TYPES: Final = ("number", "string", "object", "binData", "objectId", "bool", "timestamp", "regex")
_OTHER_TYPES: Final[Mapping[str, Any]] = {
    "missing or null": None,
    **{name: {"$type": name} for name in _TYPES},
}

_CHECK_SETTINGS: Final = "etl config, and correct mongo.uri, mongo.database or collections"


class Source(Protocol):
    """One collection, as the doctor looks at it: see `etl.mongo.reader.Source`."""

    @property
    def index(self) -> str | None:
        """The name of the index that `prepare` found."""
        ...

    def ask(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer to one command on the database."""
        ...

    def fetch(self, ids: Sequence[Any]) -> list[bytes]:
        """Documents by `_id`."""
        ...

    def prepare(self) -> bool:
        """Look for the index."""
        ...

    def create_index_command(self) -> str:
        """What creates the index."""
        ...

    def clock(self) -> int:
        """The server's clock, in milliseconds since the epoch."""
        ...


def examine(settings: Settings, sources: Mapping[str, Source]) -> Iterator[Finding]:
    """The server and each configured collection; nothing more when the server is away."""
    server = next(iter(sources.values()))
    try:
        info = server.ask({"buildInfo": 1})
    except EtlError as error:
        yield wrong("connection", "MongoDB", str(error), f"{_CHECK_SETTINGS}; is the server up?")
        return
    yield well("connection", "MongoDB", "answers")
    yield _version(info["version"], info["versionArray"])
    for name, source in sources.items():
        yield from _collection(settings.mongo.database, settings.collection(name), source)


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
    denied = _role(database, settings.name, source)
    yield denied or well("role", settings.name, "can be read")
    if denied is None:
        yield _index(database, settings, source)
        yield _dates(database, settings, source)


def _role(database: str, name: str, source: Source) -> Finding | None:
    """What is wrong with our rights; a read of no document needs the same as one of many."""
    try:
        source.fetch([])
    except EtlError as error:
        return wrong("role", name, str(error), _grant(database, source))
    return None


def _grant(database: str, source: Source) -> str:
    users = source.ask({"connectionStatus": 1})["authInfo"]["authenticatedUsers"]
    if not users:
        return "export ETL_MONGO__URI=mongodb://USER:PASSWORD@HOST:PORT/?authSource=admin"
    home, user = users[0]["db"], users[0]["user"]
    role = f"[{{role: 'read', db: {database!r}}}]"
    return f"db.getSiblingDB({home!r}).grantRolesToUser({user!r}, {role})"


def _index(database: str, settings: CollectionSettings, source: Source) -> Finding:
    try:
        found = source.prepare()
    except EtlError as error:
        return wrong("index", settings.name, str(error), _CHECK_SETTINGS)
    if found:
        return well("index", settings.name, str(source.index))
    known = source.ask({"listCollections": 1, "filter": {"name": settings.name}, "nameOnly": True})
    missing = (
        f"no index holds all of it in the order of ({settings.timestamp_field}, _id):"
        " every page reads the whole collection"
        if known["cursor"]["firstBatch"]
        else f"not in the database {database}: misspelt, or without its index until it has documents"
    )
    return wrong("index", settings.name, missing, source.create_index_command())


def _dates(database: str, settings: CollectionSettings, source: Source) -> Finding:
    field = settings.timestamp_field
    if source.index is None:
        text = f"types of {field} not counted: without the index that reads the whole collection"
        return note("dates", settings.name, text)
    types = _types(settings.name, field, source)
    if not types:
        return well("dates", settings.name, f"{field} is a date everywhere")
    total = sum(types.values())
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(types.items()))
    return wrong(
        "dates",
        settings.name,
        f"{field} is no date in {total}{' or more' if total >= COUNT_CAP else ''} documents ({kinds}):"
        " no delta can find them",
        f"db.getSiblingDB({database!r}).getCollection({settings.name!r}).updateMany("
        f"{{{field!r}: {{$not: {{$type: 'date'}}}}}}, [{{$set: {{{field!r}: '$$NOW'}}}}])",
    )


def _types(collection: str, field: str, source: Source) -> dict[str, int]:
    """How many documents have each type of timestamp that is no date, each at most `COUNT_CAP`.

    One count per type, as each is one range of the index; "no date" would walk all of it.
    """
    counts: dict[str, int] = {}
    for name, criterion in _OTHER_TYPES.items():
        command: dict[str, Any] = {"count": collection, "query": {field: criterion}, "limit": COUNT_CAP}
        answer = source.ask(command | {"hint": source.index, "collation": {"locale": "simple"}})
        if answer["n"]:
            counts[name] = answer["n"]
    return counts
