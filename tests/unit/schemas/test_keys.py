"""Keys: the users' vectors, collisions, and characters that could inject a pattern."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unicodedata import category, normalize
from urllib.parse import quote, unquote
from uuid import UUID

import pytest
from bson import Binary, Code, Decimal128, Int64, ObjectId, Regex

from schemas.documents import FAMILIES
from schemas.families import CAMPAIGN_MESSAGES, CONTRACT, MCP_TOOL, Family
from schemas.keys import component, params_hash, segmento_hash, slot_key

VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parents[2] / "data" / "key_vectors.json").read_text(encoding="utf-8")
)

# PropList.txt of Unicode, property White_Space.
WHITE_SPACE = [
    *range(0x0009, 0x000E),
    0x0020,
    0x0085,
    0x00A0,
    0x1680,
    *range(0x2000, 0x200B),
    0x2028,
    0x2029,
    0x202F,
    0x205F,
    0x3000,
]
# Whole messages, so that none quotes the value.
REFUSED = (
    r"^(NaN and infinities have no JSON form"
    r"|an integer beyond 2\^53 - 1 has no canonical JSON form"
    r"|a decimal that is no double has no canonical JSON form"
    r"|(Code|Regex) has no JSON form)$"
)
A_UUID = "12345678-1234-5678-1234-567812345678"
LONE_SURROGATE = "a\ud800"


@pytest.mark.parametrize("vector", VECTORS["segmento_hash"], ids=lambda vector: vector["segmento"])
def test_segmento_hash_vectors(vector: dict[str, Any]) -> None:
    assert segmento_hash(vector["segmento"]) == vector["hash"]


@pytest.mark.parametrize("vector", VECTORS["params_hash"], ids=lambda vector: str(vector["params"]))
def test_params_hash_vectors(vector: dict[str, Any]) -> None:
    assert params_hash(vector["params"]) == vector["hash"]


@pytest.mark.parametrize("vector", VECTORS["key_component"], ids=lambda vector: vector["encoded"])
def test_component_vectors(vector: dict[str, Any]) -> None:
    assert component(vector["value"]) == vector["encoded"]


@pytest.mark.parametrize("vector", VECTORS["key"], ids=lambda vector: vector["key"])
def test_key_vectors(vector: dict[str, Any]) -> None:
    assert FAMILIES[vector["family"]].key(**vector["parts"]) == vector["key"]


def test_every_family_has_a_key_vector() -> None:
    assert {vector["family"] for vector in VECTORS["key"]} == {family.name for family in CONTRACT}


@pytest.mark.parametrize("code", WHITE_SPACE, ids=lambda code: f"U+{code:04X}")
def test_every_white_space_character_is_encoded(code: int) -> None:
    """Every character with the Unicode property White_Space, such as U+0085, U+2028, U+3000."""
    character = chr(code)
    encoded = component(f"a{character}b")
    assert encoded == f"a{quote(normalize('NFC', character))}b"
    assert character not in encoded


def test_exactly_the_special_characters_are_encoded() -> None:
    """White space, C0, C1, DEL and the nine marks, of all of Unicode.

    So U+200D and variation selectors, which hold emoji together, stay.
    """
    special = set(WHITE_SPACE) | {ord(mark) for mark in r"%:{}*?[]\\"}
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if category(character) == "Cs" or normalize("NFC", character) != character:
            continue
        encoded = component(character) != character
        assert encoded == (code in special or category(character) == "Cc"), f"U+{code:04X}"


@pytest.mark.parametrize("value", ["{tag}", "a:b", "*", "?", "[a-z]", "\\*", "%", "\u0085", "\u009f", "\x7f"])
def test_values_cannot_inject_special_characters(value: str) -> None:
    """Neither a hash tag, a separator, a pattern nor a control; the value can be decoded again."""
    key = CAMPAIGN_MESSAGES.key(campana_id=value, segmento="x")
    encoded = key.removeprefix(CAMPAIGN_MESSAGES.prefix).rpartition(":")[0]
    assert not set(encoded) & set("{}:*?[]\\ \u0085\u009f\x7f")
    assert unquote(encoded) == value


def test_value_that_looks_encoded_has_another_key() -> None:
    assert component("a:b") != component("a%3Ab")


def test_composed_and_decomposed_text_have_the_same_key() -> None:
    assert component("Peru\u0301") == component("Per\u00fa")
    assert segmento_hash("Peru\u0301") == segmento_hash("Per\u00fa")


@pytest.mark.parametrize("write", [component, segmento_hash, params_hash])
def test_lone_surrogate_is_refused_and_not_quoted(write: Any) -> None:
    """The message may be logged."""
    with pytest.raises(ValueError, match=r"^text is not valid Unicode$"):
        write(LONE_SURROGATE)


def test_lone_surrogate_in_a_field_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^text is not valid Unicode$"):
        params_hash({LONE_SURROGATE: 1})


@pytest.mark.parametrize(
    ("bson_value", "json_value"),
    [
        (ObjectId("507f1f77bcf86cd799439011"), "507f1f77bcf86cd799439011"),
        (datetime(2025, 1, 15, 10, 30, tzinfo=UTC), "2025-01-15T10:30:00Z"),
        (Int64(10), 10),
        (Decimal128("10.00"), 10),
        (Decimal128("0.1"), 0.1),
        (Decimal128("1E+21"), 1e21),
        (-0.0, 0),
        (b"\x00\xff", "AP8="),
        (Binary(b"\x00\xff", 128), "AP8="),
        (
            Binary.from_uuid(UUID(A_UUID)),
            A_UUID,
        ),
        (True, True),
        (2**53 - 1, 2**53 - 1),
    ],
)
def test_bson_params_hash_like_their_json(bson_value: Any, json_value: Any) -> None:
    """At any depth."""
    assert params_hash({"a": [{"b": bson_value}]}) == params_hash({"a": [{"b": json_value}]})


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        Decimal128("-Infinity"),
        Decimal128("NaN"),
        2**53,
        Int64(-(2**53)),
        Int64(2**63 - 1),
        Decimal128("1E+6000"),
        Decimal128("1E-6000"),
        Decimal128("0.1000000000000000055511151231257827"),
        Code("x"),
        Regex("x"),
    ],
    ids=repr,
)
def test_params_without_canonical_json_are_refused(value: Any) -> None:
    """Values that RFC 8785 cannot write, or cannot distinguish from another number."""
    with pytest.raises(ValueError, match=REFUSED):
        params_hash({"a": [value]})


def test_true_and_one_are_different_params() -> None:
    assert len({params_hash(value) for value in (True, 1, "1", [1], {"1": 1})}) == 5


def test_slot_key_is_in_the_slot_of_its_key() -> None:
    """Its hash tag is the whole key; a value cannot close that tag early."""
    assert slot_key("etl:last_sync:c", "checkpoint") == "{etl:last_sync:c}:checkpoint"
    hostile = FAMILIES["etl:last_sync"].key(collection="a}b{c")
    assert slot_key(hostile, "checkpoint").partition("}")[0] == "{" + hostile


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"server": "a", "tool": "b"},
        {"server": "a", "tool": "b", "params_hash": "c"},
        {"server": "a", "tool": "b", "params": {}, "other": "c"},
    ],
)
def test_wrong_parts_are_refused_by_name(parts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="mcp:tool takes server, tool, params; given: "):
        MCP_TOOL.key(**parts)


@pytest.mark.parametrize("family", CONTRACT, ids=lambda family: family.name)
def test_parts_are_in_the_order_of_the_pattern(family: Family) -> None:
    (vector,) = [vector for vector in VECTORS["key"] if vector["family"] == family.name]
    assert list(family.parts) == list(vector["parts"])
    assert vector["key"].startswith(family.prefix)
