"""Field types: accepted values, and the text that is written."""

from typing import Any

import pytest
from bson import Decimal128, Int64
from bson.datetime_ms import DatetimeMS

from schemas.documents import project
from schemas.operations import Projection, Reject
from tests import factories
from tests.support.results import hash_of

WHOLE = ["metadata.tokens_total", "tokens_used", "requests_last_min", "errors_last_hour", "max_requests_hora"]
MAKERS = {
    "tokens_used": factories.resultado_mcp,
    "cost_usd": factories.resultado_mcp,
    "timestamp": factories.resultado_mcp,
    "requests_last_min": factories.estado_servidor,
    "errors_last_hour": factories.estado_servidor,
    "avg_response_time": factories.estado_servidor,
    "last_health_check": factories.estado_servidor,
    "last_updated": factories.integracion_api,
    "endpoints": factories.integracion_api,
    "max_requests_hora": factories.cliente_mcp,
    "rate_limit": factories.cliente_mcp,
}


def _with(path: str, value: Any) -> dict[str, Any]:
    parent, _, field = path.rpartition(".")
    return factories.generacion(metadata={field: value}) if parent else MAKERS[field](**{field: value})


def _written(path: str, value: Any) -> str:
    outcome = project(_with(path, value), "generacion")
    assert isinstance(outcome, Projection), outcome
    return hash_of(outcome.entries[-1])[path.rpartition(".")[2]]


def _refused(path: str, value: Any) -> list[str]:
    outcome = project(_with(path, value), "generacion")
    assert isinstance(outcome, Reject), outcome
    return [error.field for error in outcome.errors]


@pytest.mark.parametrize("path", WHOLE)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (Int64(2**63 - 1), "9223372036854775807"),
        (-(2**63), "-9223372036854775808"),
        (410.0, "410"),
        (-0.0, "0"),
        (Decimal128("410.00"), "410"),
        (Decimal128("4.1E+2"), "410"),
    ],
    ids=str,
)
def test_whole_number_may_be_a_double(path: str, value: Any, expected: str) -> None:
    """JavaScript shells write whole numbers as doubles."""
    assert _written(path, value) == expected


@pytest.mark.parametrize("path", WHOLE)
@pytest.mark.parametrize(
    "value",
    [True, "410", 410.5, float("nan"), float("inf"), Decimal128("0.1"), Decimal128("1E+6000"), 1e19, [], {}],
    ids=str,
)
def test_other_values_are_no_whole_number(path: str, value: Any) -> None:
    """A bool, a text, a fraction, or a number of more than 64 bits."""
    assert _refused(path, value) == [path]


@pytest.mark.parametrize("path", ["metadata.cost_total_usd", "cost_usd", "avg_response_time"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (350, "350"),
        (350.0, "350"),
        (0.0041, "0.0041"),
        (Decimal128("0.004100"), "0.0041"),
        (Int64(1), "1"),
        (1e-7, "0.0000001"),
    ],
    ids=str,
)
def test_decimal_numbers_are_written_exactly(path: str, value: Any, expected: str) -> None:
    """In the shortest form without exponent."""
    assert _written(path, value) == expected


@pytest.mark.parametrize("path", ["metadata.cost_total_usd", "cost_usd", "avg_response_time"])
@pytest.mark.parametrize("value", [True, "0.0041", float("nan"), Decimal128("Infinity"), []], ids=str)
def test_other_values_are_no_decimal_number(path: str, value: Any) -> None:
    assert _refused(path, value) == [path]


DATES = ["metadata.fecha_generacion", "timestamp", "last_health_check", "last_updated"]


@pytest.mark.parametrize("path", DATES)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (factories.MOMENT, "2025-01-15T10:30:00Z"),
        (factories.MOMENT.replace(microsecond=250_000), "2025-01-15T10:30:00.250Z"),
        ("2025-01-15T10:30:00Z", "2025-01-15T10:30:00Z"),
        ("2025-01-15 04:30:00-06:00", "2025-01-15T10:30:00Z"),
        ("2025-01-15T10:30+00", "2025-01-15T10:30:00Z"),
        ("2025-01-15T10:30:00.250999+0000", "2025-01-15T10:30:00.250Z"),
        ("2025-01-15T10:30:00.000999Z", "2025-01-15T10:30:00Z"),
        ("2025-01-15T10:30:00.0000001Z", "2025-01-15T10:30:00Z"),
    ],
    ids=str,
)
def test_dates_are_normalised_to_utc(path: str, value: Any, expected: str) -> None:
    """A BSON date, or ISO text with an offset."""
    assert _written(path, value) == expected


@pytest.mark.parametrize("path", DATES)
@pytest.mark.parametrize(
    "value",
    [
        "2025-01-15T10:30:00",
        "2025-01-15",
        "2025-02-30T10:30:00Z",
        "2025-01-15T25:30:00Z",
        "0001-01-01T00:00:00+05:00",
        "9999-12-31T23:59:59-05:00",
        "\u0662025-01-15T10:30:00Z",
        "2025-01-15T10:30:00.\u0662Z",
        "2025-01-15T10:30:00Z\n",
        "ayer",
        "",
        1736937000,
        1736937000.0,
        True,
    ],
    ids=repr,
)
def test_other_values_are_no_date(path: str, value: Any) -> None:
    """Text without offset, days that do not exist, numbers."""
    assert _refused(path, value) == [path]


def test_date_beyond_python_datetime_is_rejected() -> None:
    """BSON dates reach 292 million years."""
    decoded = factories.decoded({"timestamp": DatetimeMS(2**60)})
    assert _refused("timestamp", decoded["timestamp"]) == ["timestamp"]


@pytest.mark.parametrize(
    ("value", "expected"), [("500/minuto", "500/minuto"), (500, "500"), (500.0, "500"), ("", "")]
)
def test_rate_limit_is_text_or_a_whole_number(value: Any, expected: str) -> None:
    assert _written("rate_limit", value) == expected


@pytest.mark.parametrize("value", [True, 0.5, [], {}, b"500"])
def test_other_values_are_no_rate_limit(value: Any) -> None:
    assert _refused("rate_limit", value) == ["rate_limit"]


@pytest.mark.parametrize("value", ["getContent", {"a": 1}, 1, b""])
def test_other_values_are_no_list(value: Any) -> None:
    assert _refused("endpoints", value) == ["endpoints"]
