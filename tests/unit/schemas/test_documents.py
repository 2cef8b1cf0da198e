"""Rules for all kinds of documents: registration, identity, tombstones, rejection."""

from dataclasses import replace
from typing import Any

import pytest
from bson import Binary, ObjectId

from schemas.documents import FAMILIES, KINDS, project
from schemas.documents.kind import Document
from schemas.operations import Enqueue, Evict, FieldError, Keep, Projection, Reject
from tests import factories
from tests.support.results import hash_of

IDENTITIES = {
    "generacion": ("campana_id", "segmento"),
    "resultado_mcp": ("server", "tool"),
    "estado_servidor": ("server_name",),
    "integracion_api": ("provider_name",),
    "cliente_mcp": ("client_name",),
}
REQUIRED = {
    "generacion": ("mensajes",),
    "resultado_mcp": ("result",),
    "estado_servidor": ("status",),
    "integracion_api": ("status",),
    "cliente_mcp": ("tools_acceso", "estado"),
}
IDENTITY_FIELDS = [(tipo, field) for tipo, fields in IDENTITIES.items() for field in fields]
REQUIRED_FIELDS = [(tipo, field) for tipo, fields in REQUIRED.items() for field in fields]


def _applied(document: dict[str, Any]) -> Projection:
    outcome = project(document, "generacion")
    assert isinstance(outcome, Projection), outcome
    return outcome


def _rejected(document: dict[str, Any]) -> Reject:
    outcome = project(document, "generacion")
    assert isinstance(outcome, Reject), outcome
    return outcome


def test_sample_documents_give_exactly_the_expected_entries() -> None:
    """Keys, types, values, and the order of members and fields."""
    written: dict[str, Any] = {}
    for document in map(factories.decoded, factories.samples()):
        for entry in _applied(document).entries:
            assert not isinstance(entry, Evict)
            if isinstance(entry, Keep):
                continue
            family = FAMILIES[entry.family]
            value = [entry.item] if isinstance(entry, Enqueue) else entry.read
            written[entry.key] = {"type": family.type, "ttl": family.ttl, "value": value}
    assert written == factories.expected_of_documents()
    for key, entry in factories.expected_of_documents().items():
        assert list(written[key]["value"]) == list(entry["value"]), "the order of the fields"


def test_fields_outside_the_contract_are_not_projected() -> None:
    """Such as an `api_key`."""
    for make in factories.VALID.values():
        secrets = {"api_key": "sk-secret", "token": "sk-secret", "updated_at": factories.MOMENT}
        assert "sk-secret" not in repr(_applied(make(**secrets)))


def test_every_kind_is_registered_with_its_name_field() -> None:
    assert list(KINDS) == list(factories.VALID)
    assert {kind.tipo: kind.name_field for kind in KINDS.values()} == {
        "generacion": "campana_id",
        "resultado_mcp": "server",
        "estado_servidor": "server_name",
        "integracion_api": "provider_name",
        "cliente_mcp": "client_name",
    }


@pytest.mark.parametrize("tipo", list(factories.VALID))
def test_document_without_tipo_has_the_default_one(tipo: str) -> None:
    """Null counts as none."""
    document = factories.VALID[tipo]()
    expected = project(document, "generacion")
    assert isinstance(expected, Projection)
    assert project(document | {"tipo": None}, tipo) == expected
    del document["tipo"]
    assert project(document, tipo) == expected


@pytest.mark.parametrize("tipo", ["secreto", "", "Generacion", 1, ["generacion"], {"a": 1}, True])
def test_unknown_tipo_is_rejected_with_the_known_ones(tipo: Any) -> None:
    """The reason does not quote the document."""
    reject = _rejected(factories.generacion(tipo=tipo))
    known = "generacion, resultado_mcp, estado_servidor, integracion_api, cliente_mcp"
    assert reject == Reject("unknown tipo", (FieldError("tipo", f"should be one of {known}"),))


@pytest.mark.parametrize("tipo", list(factories.VALID))
def test_tombstone_evicts_every_key_of_its_document(tipo: str) -> None:
    """Under the same lock."""
    live = _applied(factories.VALID[tipo]())
    gone = _applied(factories.VALID[tipo](eliminado=True))
    assert gone.entries == tuple(Evict(entry.family, entry.key) for entry in live.entries)
    assert gone.lock == live.lock


@pytest.mark.parametrize("tipo", list(factories.VALID))
def test_tombstone_needs_only_its_identity(tipo: str) -> None:
    """Its other fields may be absent or invalid."""
    whole = factories.VALID[tipo](eliminado=True)
    bare = {field: whole[field] for field in ("tipo", "eliminado", *IDENTITIES[tipo])}
    wrong = bare | dict.fromkeys(("estado", "status", "mensajes", "result", "tools_acceso"), float("nan"))
    assert _applied(bare) == _applied(wrong) == _applied(whole)


@pytest.mark.parametrize("tipo", list(factories.VALID))
@pytest.mark.parametrize("eliminado", [False, None])
def test_eliminado_false_or_null_equals_absent(tipo: str, eliminado: Any) -> None:
    make = factories.VALID[tipo]
    assert _applied(make(eliminado=eliminado)) == _applied(make())


@pytest.mark.parametrize("tipo", list(factories.VALID))
@pytest.mark.parametrize("eliminado", ["true", 1, 0, "", [], 1.0])
def test_eliminado_must_be_a_bool(tipo: str, eliminado: Any) -> None:
    """Other values are not interpreted."""
    assert _rejected(factories.VALID[tipo](eliminado=eliminado)) == Reject(
        "invalid fields", (FieldError("eliminado", "should be true or false"),)
    )


@pytest.mark.parametrize(("tipo", "field"), IDENTITY_FIELDS)
@pytest.mark.parametrize("eliminado", [False, True])
@pytest.mark.parametrize(
    "value",
    [None, "", 1, True, ["a"], {"a": 1}, b"a", ObjectId(b"twelve bytes"), Binary(b"a", 5), "a\ud800"],
    ids=repr,
)
def test_identity_must_be_text_that_is_not_empty(
    *, tipo: str, field: str, eliminado: bool, value: Any
) -> None:
    """Also in a tombstone."""
    reject = _rejected(factories.VALID[tipo](eliminado=eliminado, **{field: value}))
    assert [error.field for error in reject.errors] == [field]


@pytest.mark.parametrize(("tipo", "field"), IDENTITY_FIELDS + REQUIRED_FIELDS)
def test_absent_required_field_is_rejected(tipo: str, field: str) -> None:
    document = factories.VALID[tipo]()
    del document[field]
    assert _rejected(document) == Reject("invalid fields", (FieldError(field, "Field required"),))


def test_rejection_names_every_invalid_field() -> None:
    """So that the document can be corrected in one go."""
    message = {"numero": "1", "texto": None}
    reject = _rejected(
        factories.generacion(campana_id="", mensajes=[message], metadata={"tokens_total": "x"})
    )
    assert [error.field for error in reject.errors] == [
        "campana_id",
        "mensajes.0.numero",
        "mensajes.0.texto",
        "mensajes.0.tono",
        "metadata.tokens_total",
    ]


def test_rejection_names_at_most_20_fields() -> None:
    """A document with a million invalid messages must not become a dead letter of 100 MB."""
    reject = _rejected(factories.generacion(mensajes=[{}] * 1000))
    assert len(reject.errors) == 20


SECRET = "sk-secret"
INVALID = [
    factories.generacion(campana_id=[SECRET]),
    factories.generacion(estado=SECRET),
    factories.generacion(estado="pendiente", prioridad=SECRET),
    factories.generacion(mensajes=SECRET),
    factories.generacion(mensajes=[{"numero": SECRET, "texto": [SECRET], "tono": {SECRET: 1}}]),
    factories.generacion(metadata=[SECRET]),
    factories.generacion(metadata={"tokens_total": SECRET, "fecha_generacion": SECRET}),
    factories.resultado_mcp(result=SECRET + "\ud800"),
    factories.resultado_mcp(result={SECRET + "\ud800": 1}),
    factories.resultado_mcp(params={SECRET: float("nan")}),
    factories.resultado_mcp(timestamp=SECRET, tokens_used=SECRET, cost_usd=SECRET, segmento=[SECRET]),
    factories.integracion_api(rate_limit=[SECRET], endpoints=SECRET),
    factories.cliente_mcp(tools_acceso={SECRET: SECRET}, max_requests_hora=SECRET),
    factories.estado_servidor(status=[SECRET], avg_response_time=SECRET, eliminado=SECRET),
    factories.estado_servidor(tipo=SECRET),
]


@pytest.mark.parametrize("document", INVALID, ids=lambda document: str(sorted(document))[:60])
def test_rejection_quotes_nothing_of_the_document(document: dict[str, Any]) -> None:
    """Rejections are logged and stored."""
    assert SECRET not in repr(_rejected(document))


@pytest.mark.parametrize("field", ["result", "params"])
def test_too_deep_nesting_is_rejected(field: str) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert _rejected(factories.resultado_mcp(**{field: deep})) == Reject("nested too deeply")


@pytest.mark.parametrize("depth", [100, 180])
def test_nesting_that_mongodb_allows_is_written(depth: int) -> None:
    deep: list[Any] = []
    for _ in range(depth):
        deep = [deep]
    (entry,) = _applied(factories.resultado_mcp(result=deep, params=deep)).entries
    assert hash_of(entry)["result"] == "[" * (depth + 1) + "]" * (depth + 1)


def test_value_error_of_a_kind_rejects_without_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text of an exception may quote the document."""

    def careless(document: Document) -> Projection:
        raise ValueError(document["client_name"])

    monkeypatch.setattr(
        "schemas.documents.KINDS", {"cliente_mcp": replace(KINDS["cliente_mcp"], warm=careless)}
    )
    assert _rejected(factories.cliente_mcp(client_name=SECRET)) == Reject("a value has no form in Redis")
