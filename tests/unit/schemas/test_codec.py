"""Decoding of BSON that the driver would change."""

import struct
from typing import Any

import bson
import pytest
from bson import Code, DBRef, Int64, ObjectId, Regex, Timestamp
from bson.errors import InvalidBSON

from schemas import codec
from schemas.codec import (
    DECODING,
    RawValue,
    decode,
    decode_all,
    document_of,
    elements,
    packed,
    python_value,
    raw_value,
    unpacked,
)

EVERYTHING: dict[str, Any] = {
    "double": 1.5,
    "text": "á",
    "object": {"a": 1},
    "array": [1, "2"],
    "binary": b"\0",
    "id": ObjectId(),
    "bool": True,
    "date": bson.DatetimeMS(5),
    "null": None,
    "regex": Regex("a", "im"),
    "code": Code("a"),
    "scoped": Code("a", {"x": 1}),
    "int": 1,
    "stamp": Timestamp(1, 2),
    "long": Int64(1),
    "decimal": bson.Decimal128("1"),
    "min": bson.MinKey(),
    "max": bson.MaxKey(),
    "old": bson.Binary(b"a", 2),
}
DB_POINTER = RawValue(codec.DB_POINTER, struct.pack("<i", 2) + b"c\0" + bytes(12))


def test_elements_splits_documents_of_every_type() -> None:
    """Put together again they are the document."""
    raw = bson.encode(EVERYTHING)
    found = [*elements(raw)]
    assert [name.decode() for _, name, _ in found] == [*EVERYTHING]
    assert document_of((name, RawValue(kind, data)) for kind, name, data in found) == raw
    for kind, name, data in found:
        assert raw_value(EVERYTHING[name.decode()]) == RawValue(kind, data)


@pytest.mark.parametrize("raw", [b"", b"\x05\0\0\0", b"\x07\0\0\0\x44a\0\0", b"\x08\0\0\0\x02a\0\x7f"])
def test_malformed_documents_raise_invalid_bson(raw: bytes) -> None:
    """Such as an unknown type or a name without end."""
    with pytest.raises(InvalidBSON):
        list(elements(raw))


def test_objects_with_ref_are_not_decoded_as_dbref() -> None:
    """JSON schemas have `$ref`. Their fields keep their order, at any depth."""
    schema = {"$id": "https://e/x.json", "$ref": "#/definitions/A", "z": [{"$ref": 1, "$id": 2}]}
    document = {"_id": ObjectId(), "result": [schema], "n": Int64(1), "text": "costs $ref"}
    raw = bson.encode(document)
    assert isinstance(bson.decode(raw, DECODING)["result"][0], DBRef)
    assert decode(raw) == document
    assert [*decode(raw)["result"][0]] == ["$id", "$ref", "z"]


def test_decode_all_equals_decode_of_each() -> None:
    """With and without a `$ref`, and with dates beyond Python's range."""
    plain = [bson.encode({"_id": n, "at": bson.datetime_ms.DatetimeMS(2**62), "n": [n]}) for n in range(3)]
    schema = bson.encode({"_id": 4, "result": {"$id": "x", "$ref": "#/definitions/A", "z": 1}})
    for documents in ([], plain, [*plain, schema]):
        assert [*decode_all(documents)] == [*map(decode, documents)]
    assert [*decode_all([*plain, schema])[3]["result"]] == ["$id", "$ref", "z"]


def test_documents_without_ref_are_decoded_by_the_driver() -> None:
    """Also if they contain a dollar sign."""
    raw = bson.encode({"a": "$", "b": {"$reference": 1}})
    assert decode(raw) == bson.decode(raw, DECODING)


def test_uuid_of_wrong_length_is_decoded() -> None:
    """MongoDB stores any length under that subtype."""
    raw = bson.encode({"a": bson.Binary(bytes(15), 4)})
    assert decode(raw) == {"a": bson.Binary(bytes(15), 4)}


@pytest.mark.parametrize("value", [RawValue(codec.UNDEFINED, b""), DB_POINTER])
def test_types_without_python_value_stay_bytes(value: RawValue) -> None:
    """They are encoded to the same bytes again."""
    assert raw_value(python_value(value)) == value
    assert raw_value(unpacked(packed(value))) == value


def test_sub_document_with_a_duplicate_name_stays_bytes() -> None:
    """A dictionary would keep only the last one."""
    twice = RawValue(codec.DOCUMENT, document_of([(b"a", raw_value(1)), (b"a", raw_value(2))]))
    assert python_value(twice) == twice
    assert raw_value(unpacked(packed(twice))) == twice


def test_symbol_is_decoded_as_string() -> None:
    """MongoDB compares both as the same `_id`."""
    assert python_value(RawValue(codec.SYMBOL, b"\x02\0\0\0a\0")) == "a"
