"""`collections[].fields`: documents of any shape give the same cache entries."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import redis
from pymongo.collection import Collection
from pymongo.database import Database

from etl.app import App, BackfillOrder
from etl.backfill.executors import processes
from etl.errors import ConfigurationError
from etl.model.report import RefreshReport, no_progress
from schemas.documents import fields as contract_fields
from tests.factories import expected_of_documents, samples
from tests.support.pipeline import NAME, Clock, OpenApp, sync
from tests.support.redis_dump import entries, hash_at
from tests.support.types import Document

EXPECTED = {
    key: entry | {"ttl": entry["ttl"] and pytest.approx(entry["ttl"], abs=60)}
    for key, entry in expected_of_documents().items()
}

KINDS = ("generacion", "resultado_mcp", "estado_servidor", "integracion_api", "cliente_mcp")
MESSAGES = {
    "$map": {"input": "$textos", "as": "t", "in": {"numero": "$$t.n", "texto": "$$t.t", "tono": "$$t.s"}}
}


def position(document: Document) -> Document:
    """The two fields that cannot be mapped."""
    return {"_id": document["_id"], "updated_at": document["updated_at"]}


def flat() -> tuple[dict[str, list[Document]], list[Document]]:
    """Documents with other names of all fields, in one collection."""
    documents = []
    for one in samples():
        renamed = {f"x_{name}": value for name, value in one.items() if name not in position(one)}
        if "mensajes" in one:
            del renamed["x_mensajes"]
            renamed["textos"] = [{"n": m["numero"], "t": m["texto"], "s": m["tono"]} for m in one["mensajes"]]
        documents.append(position(one) | renamed | {"activo": True})
    names = {name for one in samples() for name in one} & {*contract_fields()}
    fields: Document = {name: f"$x_{name}" for name in names}
    fields["mensajes"] = {"$cond": [{"$isArray": "$textos"}, MESSAGES, "$$REMOVE"]}
    fields["eliminado"] = {"$not": ["$activo"]}
    return {"flat": documents}, [{"name": "flat", "fields": fields}]


def nested() -> tuple[dict[str, list[Document]], list[Document]]:
    """Documents with all fields one level deeper."""
    documents = []
    for one in samples():
        inner = {name: value for name, value in one.items() if name not in {*position(one), "tipo"}}
        documents.append(position(one) | {"kind": {"es": one["tipo"]}, "datos": inner})
    names = {name for one in samples() for name in one} & {*contract_fields()}
    fields = {name: f"$datos.{name}" for name in names} | {"tipo": "$kind.es"}
    return {"nested": documents}, [{"name": "nested", "fields": fields}]


def by_kind() -> tuple[dict[str, list[Document]], list[Document]]:
    """One collection for each kind, without `tipo`, and with another name for the identity."""
    names = {"generacion": "campana_id", "resultado_mcp": "tool", "estado_servidor": "server_name"}
    names |= {"integracion_api": "provider_name", "cliente_mcp": "client_name"}
    filled: dict[str, list[Document]] = {f"c_{tipo}": [] for tipo in KINDS}
    for one in samples():
        rest = {name: value for name, value in one.items() if name not in {"tipo", names[one["tipo"]]}}
        filled[f"c_{one['tipo']}"].append(rest | {"nombre": {"de": one[names[one["tipo"]]]}})
    settings = [
        {"name": f"c_{tipo}", "fields": {"tipo": {"$literal": tipo}, names[tipo]: "$nombre.de"}}
        for tipo in KINDS
    ]
    return filled, settings


Shape = Callable[[], tuple[dict[str, list[Document]], list[Document]]]


@pytest.mark.parametrize("shape", [flat, nested, by_kind])
@pytest.mark.parametrize("indexed", [True, False], ids=["indexed", "unindexed"])
def test_documents_of_any_shape_give_the_same_cache(
    shape: Shape,
    indexed: bool,  # noqa: FBT001 (of the parametrisation)
    open_app: OpenApp,
    database: Database[Document],
    redis_client: redis.Redis,
) -> None:
    """The one of the users' samples; `verify` and a refresh agree."""
    filled, collections = shape()
    for name, documents in filled.items():
        database[name].insert_many(documents)
        if indexed:
            database[name].create_index([("updated_at", 1), ("_id", 1)])
    with open_app(settings={"collections": collections}) as app:
        reports = [*app.sync()]
        assert [report.error for report in reports] == [None] * len(collections)
        assert sum(report.records_processed for report in reports) == len(samples())
        assert entries(redis_client) == EXPECTED
        assert all(app.verify(one["name"]).true for one in collections)

        redis_client.delete("config:api:openai", "config:client:marketing-web")
        assert app.refresh("config:api", "openai").written == 1
        assert app.refresh("config:api", "other").written == 0
        assert app.refresh("config:client").written == 1
        assert entries(redis_client) == EXPECTED


MAPPING: Mapping[str, Any] = {
    "tipo": {"$literal": "integracion_api"},
    "provider_name": "$quien.nombre",
    "status": {"$toString": {"$divide": [100, "$parte"]}},
    "eliminado": {"$not": ["$activo"]},
}
"""The mapping for documents of `provider`."""


def provider(name: str, updated_at: Any, **changes: Any) -> Document:
    """A document in another shape."""
    return {"quien": {"nombre": name}, "parte": 4, "activo": True, "updated_at": updated_at} | changes


@pytest.fixture
def app(open_app: OpenApp) -> App:
    """The application with that mapping."""
    return open_app(fields=dict(MAPPING))


def test_mapped_tombstone_evicts(
    app: App, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """`activo: false` is `eliminado: true`."""
    collection.insert_one(provider("a", clock.ago(2), _id=1))
    sync(app)
    assert hash_at(redis_client, "config:api:a") == {"status": "25"}
    collection.replace_one({"_id": 1}, provider("a", clock.ago(1), activo=False))
    assert sync(app).records_processed == 1
    assert not redis_client.exists("config:api:a")
    assert app.verify(NAME).true


@pytest.fixture(params=["indexed", "unindexed"])
def either_collection(request: pytest.FixtureRequest, database: Database[Document]) -> Collection[Document]:
    """The collection, with and without the index."""
    found: Collection[Document] = (
        request.getfixturevalue("collection") if request.param == "indexed" else database[NAME]
    )
    return found


def test_document_that_cannot_be_mapped_is_a_dead_letter(
    app: App, either_collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """The others are applied. The dead letter quotes nothing, and is removed when the document is corrected."""
    either_collection.insert_many(
        [provider(f"n{n}", clock.ago(300 - n), _id=n, parte=4 if n % 60 else 0) for n in range(200)]
    )
    report = sync(app)
    assert (report.records_processed, report.dead_lettered) == (196, 4)
    assert len([*redis_client.scan_iter("config:api:n*")]) == 196
    trace = app.trace(NAME, ["0"])
    assert trace.outcome == "invalid"
    [error] = trace.errors
    assert error["field"] == "status"
    assert error["problem"] == "its expression fails for this document: $divide BadValue"
    assert trace.dead_letter is not None
    verified = app.verify(NAME)
    assert (verified.true, verified.invalid, verified.matching) == (True, 4, 196)

    either_collection.update_one({"_id": 0}, {"$set": {"parte": 2, "updated_at": clock.ago(1)}})
    sync(app)
    assert hash_at(redis_client, "config:api:n0") == {"status": "50"}
    assert app.trace(NAME, ["0"]).dead_letter is None
    either_collection.update_one({"_id": 60}, {"$set": {"parte": 2}})
    assert app.retry_dead_letters(NAME, ["60"]).status == "ok"
    assert hash_at(redis_client, "config:api:n60") == {"status": "50"}


@pytest.mark.parametrize(
    ("invalid", "reason"),
    [
        ({"$nope": 1}, "Unrecognized expression '$nope'"),
        ({"$divide": [1, 0]}, "can't $divide by zero"),
        ("$$nope.x", "Use of undefined variable: nope"),
    ],
    ids=["operator", "constant", "variable"],
)
def test_invalid_expression_is_refused_by_every_command(
    invalid: Any, reason: str, open_app: OpenApp, collection: Collection[Document], clock: Clock
) -> None:
    """With the reason of MongoDB and the setting; no document becomes a dead letter."""
    collection.insert_one(provider("a", clock.ago(1), _id=1))
    app = open_app(fields=dict(MAPPING) | {"status": invalid})
    message = f"collections.0.fields.status: {reason}"
    [report] = app.sync()
    assert (report.status, report.error, report.exit_code) == (
        "failed",
        message,
        ConfigurationError.exit_code,
    )
    backfill = app.backfill(NAME, BackfillOrder(), no_progress)
    assert (backfill.error, backfill.exit_code) == (message, ConfigurationError.exit_code)
    for ask in (
        lambda: app.refresh("config:api"),
        lambda: app.verify(NAME),
        lambda: app.trace(NAME, ["1"]),
    ):
        with pytest.raises(ConfigurationError) as refused:
            ask()
        assert str(refused.value) == message
    assert app.dead_letters(NAME).list() == []
    [finding] = [one for one in app.doctor() if one.level == "finding" and one.subject == NAME]
    assert (finding.check, finding.text) == ("fields", message)
    collection.delete_many({})
    [report] = app.sync()
    assert report.error == message


def test_refresh_continues_after_a_document_that_fails_its_filter(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """The name of one document cannot be computed; the others are found by theirs."""
    fields = dict(MAPPING) | {"provider_name": {"$concat": ["$quien.nombre", "_x"]}}
    app = open_app(fields=fields, page_size=7)
    documents = [provider(f"n{n}", clock.ago(300 - n), _id=n) for n in range(40)]
    collection.insert_many([*documents, provider("", clock.ago(280), _id=99) | {"quien": {"nombre": 5}}])
    found = RefreshReport("config:api", "n3_x", documents=2, written=1, rejected=1)
    assert app.refresh("config:api", "n3_x") == found
    assert [*redis_client.scan_iter("config:api:*")] == ["config:api:n3_x"]
    assert app.refresh("config:api").written == 40


def test_backfill_workers_apply_the_mapping(
    app: App, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """Also beside a document that cannot be mapped."""
    documents = [provider(f"n{n}", clock.ago(5000 - n), _id=n) for n in range(3000)]
    collection.insert_many([*documents, provider("bad", clock.ago(10), _id=-1, parte=0)])
    report = app.backfill(NAME, BackfillOrder(executors=processes(2)), no_progress)
    assert (report.error, report.dead_lettered) == (None, 1)
    assert len([*redis_client.scan_iter("config:api:*", count=5000)]) == 3000


def test_mapped_document_with_an_array_of_timestamps_is_a_dead_letter(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """If it is the last one of a page, its position is taken from the index."""
    app = open_app(fields=dict(MAPPING), page_size=1)
    collection.insert_one(provider("array", [clock.ago(9), clock.ago(3)]))
    collection.insert_many([provider("a", clock.ago(6)), provider("b", clock.ago(1))])
    assert sync(app).dead_lettered == 1
    assert sorted(redis_client.scan_iter("config:api:*")) == ["config:api:a", "config:api:b"]


def test_constant_in_a_mapping_is_literal(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """Also a number or a boolean, which would select the field in a projection."""
    fields = {
        "tipo": "cliente_mcp",
        "client_name": "web",
        "tools_acceso": {"$slice": ["$tools", 1]},
        "estado": "$estado.actual",
        "max_requests_hora": 0,
        "rate_limit": "$$REMOVE",
        "eliminado": False,
    }
    document = {"tools": ["a", "b"], "estado": {"actual": "activo"}, "rate_limit": 7, "max_requests_hora": 9}
    collection.insert_one(document | {"eliminado": True, "updated_at": clock.ago(1)})
    sync(open_app(fields=fields))
    assert hash_at(redis_client, "config:client:web") == {
        "tools_acceso": '["a"]',
        "max_requests_hora": "0",
        "estado": "activo",
    }


def test_documents_that_cannot_be_mapped_count_in_the_lag(
    app: App, collection: Collection[Document], clock: Clock
) -> None:
    """The lag depends on dates only."""
    collection.insert_one(provider("a", clock.ago(90)))
    sync(app)
    collection.insert_one(provider("bad", clock.ago(60), parte=0))
    [status] = app.status()
    assert status.error is None
    assert status.lag_seconds is not None
    assert 59 < status.lag_seconds < 120


def test_pages_of_documents_that_all_fail_are_read_completely(
    open_app: OpenApp, collection: Collection[Document], clock: Clock
) -> None:
    """Each is a dead letter, also if there are more than fit one page without projection."""
    collection.insert_many([provider(f"n{n}", clock.ago(300 - n), _id=n, parte=0) for n in range(70)])
    app = open_app(fields=dict(MAPPING))
    assert sync(app).dead_lettered == 70
    assert [one.errors[0].field for one in app.dead_letters(NAME).list()] == ["status"] * 70
