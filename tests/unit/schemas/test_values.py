"""Every BSON type as a hash field and inside JSON."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import bson
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS

from schemas.codec import DECODING
from schemas.values import json_text, plain_json, text

A_UUID = "12345678-1234-5678-1234-567812345678"
COSTA_RICA = timezone(timedelta(hours=-6))

STRINGS: list[tuple[Any, str]] = [
    ("", ""),
    ("¿Trail en Chirripó?", "¿Trail en Chirripó?"),
    (ObjectId("507f1f77bcf86cd799439011"), "507f1f77bcf86cd799439011"),
    (datetime(2025, 1, 15, 10, 30, tzinfo=UTC), "2025-01-15T10:30:00Z"),
    (datetime(2025, 1, 15, 10, 30, 0, 250_000, tzinfo=UTC), "2025-01-15T10:30:00.250Z"),
    (datetime(2025, 1, 15, 10, 30, 0, 1_000, tzinfo=UTC), "2025-01-15T10:30:00.001Z"),
    (datetime(2025, 1, 15, 10, 30), "2025-01-15T10:30:00Z"),  # noqa: DTZ001 - a date without a zone is in UTC
    (datetime(2025, 1, 15, 4, 30, tzinfo=COSTA_RICA), "2025-01-15T10:30:00Z"),
    (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00Z"),
    (datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC), "9999-12-31T23:59:59.999Z"),
    (Binary.from_uuid(UUID(A_UUID)), A_UUID),
    (b"", ""),
    (b"\x00\xff", "AP8="),
    (Binary(b"\xfb\xff", 128), "+/8="),
]
LITERALS: list[tuple[Any, str]] = [
    (0, "0"),
    (-45, "-45"),
    (Int64(2**63 - 1), "9223372036854775807"),
    (Int64(-(2**63)), "-9223372036854775808"),
    (True, "true"),
    (False, "false"),
    (None, "null"),
    (0.0041, "0.0041"),
    (350.0, "350"),
    (0.0, "0"),
    (-0.0, "0"),
    (0.1 + 0.2, "0.30000000000000004"),
    (1e22, "1" + "0" * 22),
    (1e-7, "0.0000001"),
    (-1.5e300, "-15" + "0" * 299),
    (5e-324, "0." + "0" * 323 + "5"),
    (1.7976931348623157e308, "17976931348623157" + "0" * 292),
    (Decimal128("0.0041"), "0.0041"),
    (Decimal128("0.00410"), "0.0041"),
    (Decimal128("350.00"), "350"),
    (Decimal128("350"), "350"),
    (Decimal128("1.0E+3"), "1000"),
    (Decimal128("-0"), "0"),
    (Decimal128("0E+6000"), "0"),
    (Decimal128("0E-6000"), "0"),
    (Decimal128("1E+6000"), "1" + "0" * 6000),
    (Decimal128("1E-6176"), "0." + "0" * 6175 + "1"),
    (Decimal128("1234567890.123456789012345678901234"), "1234567890.123456789012345678901234"),
    (Decimal128("9999999999999999999999999999999999"), "9" * 34),
    (Decimal("0.10"), "0.1"),
]
REFUSED = [
    (float("nan"), "NaN and infinities have"),
    (float("inf"), "NaN and infinities have"),
    (float("-inf"), "NaN and infinities have"),
    (Decimal128("NaN"), "NaN and infinities have"),
    (Decimal128("sNaN"), "NaN and infinities have"),
    (Decimal128("-Infinity"), "NaN and infinities have"),
    (Code("secreto"), "Code has"),
    (Code("secreto", {"a": 1}), "Code has"),
    (Regex("secreto"), "Regex has"),
    (Timestamp(1, 1), "Timestamp has"),
    (MinKey(), "MinKey has"),
    (MaxKey(), "MaxKey has"),
    (DBRef("secreto", 1), "DBRef has"),
    (DatetimeMS(2**62), "DatetimeMS has"),
]


def _short(value: Any) -> str:
    return f"{type(value).__name__}-{str(value)[:20]}"


@pytest.mark.parametrize(("value", "expected"), STRINGS + LITERALS, ids=_short)
def test_scalar_in_a_hash_field_is_bare_text(value: Any, expected: str) -> None:
    assert text(value) == expected


@pytest.mark.parametrize(("value", "expected"), LITERALS, ids=_short)
def test_numbers_bools_and_null_are_bare_inside_json(value: Any, expected: str) -> None:
    assert json_text({"a": [value]}) == f'{{"a":[{expected}]}}'


@pytest.mark.parametrize(("value", "expected"), STRINGS, ids=_short)
def test_other_scalars_are_strings_inside_json(value: Any, expected: str) -> None:
    assert json_text({"a": [value]}) == f'{{"a":["{expected}"]}}'


@pytest.mark.parametrize(("value", "problem"), REFUSED, ids=_short)
@pytest.mark.parametrize("wrap", [lambda it: it, lambda it: [it], lambda it: {"a": {"b": it}}])
@pytest.mark.parametrize("write", [text, json_text])
def test_values_without_json_form_are_refused_and_not_quoted(
    write: Any, wrap: Any, value: Any, problem: str
) -> None:
    """At any depth; the message has the name of the type only."""
    with pytest.raises(ValueError, match=f"^{problem} no JSON form$"):
        write(wrap(value))


@pytest.mark.parametrize("write", [text, json_text, lambda value: plain_json([{"a": value}])])
def test_lone_surrogate_is_refused_and_not_quoted(write: Any) -> None:
    with pytest.raises(ValueError, match=r"^text is not valid Unicode$"):
        write("a\udfff")


def test_lone_surrogate_in_a_field_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^text is not valid Unicode$"):
        json_text({"\ud800": 1})


def test_nested_values_are_compact_json_in_document_order() -> None:
    value = {"z": [{"id": "c-1", "score": 0.95}], "a": {}, "ñ": [], "é": [[], {}]}
    assert text(value) == '{"z":[{"id":"c-1","score":0.95}],"a":{},"ñ":[],"é":[[],{}]}'


@pytest.mark.parametrize("write", [json_text, lambda value: plain_json([value])[0].decode()])
def test_only_required_characters_are_escaped(write: Any) -> None:
    r"""Controls, `"` and `\` are; U+2028, DEL, C1, emoji and `/` are not."""
    kept = "¿Ñandú? \u2028\u2029\x7f\x85\u200d/<>&' \U0001f3d4\ufe0f"
    assert write({"a": kept}) == f'{{"a":"{kept}"}}'
    assert write({"a": '\x00\x01\b\t\n\x0b\f\r\x1f"\\'}) == (
        '{"a":"' + r"\u0000\u0001\b\t\n\u000b\f\r\u001f\"\\" + '"}'
    )


def test_plain_json_equals_json_text() -> None:
    """For every character and the extremes of int64."""
    everything = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    value = {"numero": -(2**63), "máximo": 2**63 - 1, "texto": everything}
    assert plain_json([value]) == [json_text(value).encode()]


def test_decoded_bson_types_are_written() -> None:
    """After a round trip through BSON."""
    document = {
        "oid": ObjectId("507f1f77bcf86cd799439011"),
        "long": Int64(1),
        "decimal": Decimal128("0.0041"),
        "date": datetime(2025, 1, 15, 10, 30, tzinfo=UTC),
        "uuid": Binary.from_uuid(UUID(A_UUID)),
        "binary": b"\x00",
        "other": Binary(b"\x00", 5),
        "null": None,
    }
    decoded = bson.decode(bson.encode(document, codec_options=DECODING), DECODING)
    assert text(decoded) == (
        '{"oid":"507f1f77bcf86cd799439011","long":1,"decimal":0.0041,"date":"2025-01-15T10:30:00Z",'
        '"uuid":"12345678-1234-5678-1234-567812345678","binary":"AA==","other":"AA==","null":null}'
    )


def test_decimal128_keeps_34_digits_in_json() -> None:
    written = json_text([Decimal128("0.1234567890123456789012345678901234")])
    assert json.loads(written, parse_float=Decimal) == [Decimal("0.1234567890123456789012345678901234")]
