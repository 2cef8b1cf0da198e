"""The four kinds whose documents fill one hash each."""

from typing import Any

import pytest
from bson import Decimal128, ObjectId

from schemas.documents import KINDS, project
from schemas.keys import params_hash
from schemas.operations import Projection, Put, Reject
from tests import factories
from tests.support.results import hash_of

OPTIONAL = [
    (tipo, field)
    for tipo, fields in {
        "resultado_mcp": ("timestamp", "tokens_used", "cost_usd", "segmento"),
        "estado_servidor": (
            "last_health_check",
            "requests_last_min",
            "avg_response_time",
            "errors_last_hour",
        ),
        "integracion_api": ("rate_limit", "endpoints", "last_updated"),
        "cliente_mcp": ("rate_limit", "max_requests_hora"),
    }.items()
    for field in fields
]


def _put(document: dict[str, Any]) -> Put:
    outcome = project(document, "generacion")
    assert isinstance(outcome, Projection), outcome
    (entry,) = outcome.entries
    assert isinstance(entry, Put)
    assert outcome.lock is None
    return entry


@pytest.mark.parametrize(("tipo", "field"), OPTIONAL)
def test_optional_null_field_is_left_out(tipo: str, field: str) -> None:
    make = factories.VALID[tipo]
    assert _put(make(**{field: None})) == _put(make())
    assert field not in _put(make()).value


@pytest.mark.parametrize("tipo", ["resultado_mcp", "estado_servidor", "integracion_api", "cliente_mcp"])
def test_fields_are_written_in_the_order_of_the_contract(tipo: str) -> None:
    whole = next(
        document for document in map(factories.decoded, factories.samples()) if document["tipo"] == tipo
    )
    (family,) = KINDS[tipo].families
    assert tuple(_put(dict(reversed(whole.items()))).value) == family.fields


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (None, "null"),
        ("texto", "texto"),
        ('[{"id":"c-1"}]', '[{"id":"c-1"}]'),
        (True, "true"),
        (1.50, "1.5"),
        ([], "[]"),
        ({"oid": ObjectId("507f1f77bcf86cd799439011")}, '{"oid":"507f1f77bcf86cd799439011"}'),
        ([Decimal128("1.10"), factories.MOMENT, b"\x00"], '[1.1,"2025-01-15T10:30:00Z","AA=="]'),
    ],
    ids=repr,
)
def test_result_may_be_any_value(result: Any, expected: str) -> None:
    """Also null; text is written without quotes."""
    assert hash_of(_put(factories.resultado_mcp(result=result)))["result"] == expected


@pytest.mark.parametrize("result", [float("nan"), [float("inf")], {"a": [Decimal128("NaN")]}], ids=repr)
def test_result_without_json_form_is_rejected(result: Any) -> None:
    """NaN and infinities; the error names the field."""
    outcome = project(factories.resultado_mcp(result=result), "generacion")
    assert isinstance(outcome, Reject)
    assert outcome.errors == (("result", "NaN and infinities have no JSON form"),)


@pytest.mark.parametrize("params", [{}, None, [], "texto", 10, {"b": 1, "a": [None]}], ids=repr)
def test_params_may_be_any_json(params: Any) -> None:
    """The key has their hash."""
    key = _put(factories.resultado_mcp(params=params)).key
    assert key == f"mcp:tool:content:getContent:{params_hash(params)}"


def test_params_are_empty_by_default() -> None:
    assert _put(factories.resultado_mcp()) == _put(factories.resultado_mcp(params={}))


@pytest.mark.parametrize("eliminado", [False, True])
@pytest.mark.parametrize("params", [{"a": float("nan")}, [2**53], Decimal128("Infinity")], ids=repr)
def test_params_without_a_hash_are_rejected(*, params: Any, eliminado: bool) -> None:
    """Also in a tombstone; the error names the field."""
    outcome = project(factories.resultado_mcp(params=params, eliminado=eliminado), "generacion")
    assert isinstance(outcome, Reject)
    assert [error.field for error in outcome.errors] == ["params"]


@pytest.mark.parametrize("tipo", ["estado_servidor", "integracion_api"])
@pytest.mark.parametrize("status", [None, 1, True, [], "\ud800"], ids=repr)
def test_status_must_be_text(tipo: str, status: Any) -> None:
    outcome = project(factories.VALID[tipo](status=status), "generacion")
    assert isinstance(outcome, Reject)
    assert [error.field for error in outcome.errors] == ["status"]
