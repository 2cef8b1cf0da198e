"""Our order of BSON values is that of a real MongoDB, for generated values."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
from bson import Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.binary import Binary
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.collection import Collection
from pymongo.database import Database

from schemas import codec
from schemas.bson_order import order
from schemas.codec import RawValue, document_of, python_value, raw_value
from schemas.position import position_from_text, position_of
from tests.support.types import Document

INT64 = st.integers(-(2**63), 2**63 - 1)
NEAR = st.sampled_from([0, 1, -1, 2**31, 2**53, 2**53 + 1, -(2**53) - 1])

NUMBERS: st.SearchStrategy[Any] = st.one_of(
    INT64.map(Int64),
    st.integers(-(2**31), 2**31 - 1),
    NEAR.map(Int64),
    NEAR.map(float),
    NEAR.map(lambda number: Decimal128(str(number))),
    st.floats(),
    st.sampled_from(["0", "-0", "0.1", "1E+3", "1000", "NaN", "Infinity", "-Infinity", "1E-6176"]).map(
        Decimal128
    ),
)
PLAIN: st.SearchStrategy[Any] = st.one_of(
    NUMBERS,
    st.none(),
    st.booleans(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.builds(Binary, st.binary(max_size=5), st.sampled_from([0, 2, 3, 4, 5, 128])),
    st.uuids(),
    st.binary(min_size=12, max_size=12).map(ObjectId),
    INT64.map(DatetimeMS),
    st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.builds(Regex, st.text("ab", max_size=2), st.sampled_from([0, 2, 8, 10])),
    st.sampled_from([Code(""), Code("a"), Code("ab"), Code("", {}), Code("a", {}), Code("a", {"x": 1})]),
    st.sampled_from([MinKey(), MaxKey()]),
)
# Values that the driver neither writes nor reads unchanged: `undefined`, symbols, pointers, text that is not UTF-8.
BYTES = st.sampled_from(
    [
        RawValue(codec.UNDEFINED, b""),
        RawValue(codec.SYMBOL, b"\2\0\0\0a\0"),
        RawValue(codec.DB_POINTER, b"\2\0\0\0c\0" + bytes(12)),
        RawValue(codec.DB_POINTER, b"\3\0\0\0aa\0" + bytes(12)),
        RawValue(codec.STRING, b"\2\0\0\0\xff\0"),
        RawValue(codec.STRING, b"\3\0\0\0a\x80\0"),
    ]
)
NAMES = st.text("ab", max_size=2).map(str.encode)


def array(items: list[RawValue]) -> RawValue:
    """An array of these values."""
    return RawValue(codec.ARRAY, document_of((str(n).encode(), item) for n, item in enumerate(items)))


def document(fields: list[tuple[bytes, RawValue]]) -> RawValue:
    """A document of these fields; names may be duplicates."""
    return RawValue(codec.DOCUMENT, document_of(fields))


VALUES: st.SearchStrategy[RawValue] = st.recursive(
    st.one_of(PLAIN.map(raw_value), BYTES),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(array), st.lists(st.tuples(NAMES, inner), max_size=3).map(document)
    ),
    max_leaves=5,
)


@pytest.fixture
def scratch(database: Database[Document]) -> Collection[Any]:
    """A collection for generated values, with an index on them."""
    scratch = database["values"]
    scratch.create_index([("value", 1), ("_id", 1)])
    return scratch


def sorted_by_mongodb(scratch: Collection[Any], values: list[RawValue]) -> list[int]:
    """The indexes of the values in the order of MongoDB; equal ones keep their order."""
    scratch.delete_many({})
    # Wrapped in a document, as an index has one entry for each member of a plain array.
    numbered = [
        document_of([(b"_id", raw_value(number)), (b"value", document([(b"v", value)]))])
        for number, value in enumerate(values)
    ]
    scratch.insert_many([RawBSONDocument(one) for one in numbered])
    return [found["_id"] for found in scratch.find({}, {"_id": 1}).hint([("value", 1), ("_id", 1)])]


def sorted_here(values: list[RawValue]) -> list[int]:
    """The same in our order, for raw values."""
    return sorted(range(len(values)), key=lambda number: (order(document([(b"v", values[number])])), number))


def sorted_decoded(values: list[RawValue]) -> list[int]:
    """The same in our order, for decoded values."""
    return sorted(range(len(values)), key=lambda number: (order(python_value(values[number])), number))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(VALUES, min_size=2, max_size=25))
def test_generated_values_sort_as_in_mongodb(scratch: Collection[Any], values: list[RawValue]) -> None:
    """Nested, of several types, and numbers that are equal in different types."""
    assert sorted_here(values) == sorted_decoded(values) == sorted_by_mongodb(scratch, values)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(NUMBERS.map(raw_value), min_size=10, max_size=40))
def test_numbers_sort_by_value(scratch: Collection[Any], values: list[RawValue]) -> None:
    """For any numeric type; NaN is first, zeros are equal."""
    assert sorted_decoded(values) == sorted_by_mongodb(scratch, values)


@given(timestamp=VALUES, document_id=VALUES)
def test_position_survives_a_round_trip_through_text(timestamp: RawValue, document_id: RawValue) -> None:
    """To the byte; a symbol becomes a string."""
    position = position_of(python_value(timestamp), python_value(document_id))
    text = position.text()
    again = position_from_text(text)
    assert again.order() == position.order()
    assert (again.text(), text.isascii(), text.isprintable()) == (text, True, True)
    assert [raw_value(part) for part in again] == [raw_value(part) for part in position]


def test_undefined_sorts_between_the_least_key_and_null(scratch: Collection[Any]) -> None:
    """Alone, in a document and in an array."""
    undefined = RawValue(codec.UNDEFINED, b"")
    for nest in (lambda value: value, lambda value: document([(b"a", value)]), lambda value: array([value])):
        raws = [nest(value) for value in (raw_value(None), undefined, raw_value(MinKey()), raw_value(5))]
        assert sorted_here(raws) == sorted_by_mongodb(scratch, raws) == [2, 1, 0, 3]


def test_binary_of_subtype_2_and_code_sort_as_in_mongodb(scratch: Collection[Any]) -> None:
    """The length of subtype 2 is four bytes more; code with a scope comes after code without."""
    values: list[Any] = [
        Binary(b"\0\0\0\0", 0),
        Binary(b"\0", 2),
        Code("b"),
        Code("a", {"x": 1}),
        Code("a", {}),
    ]
    raws = [raw_value(value) for value in values]
    assert sorted_here(raws) == sorted_by_mongodb(scratch, raws) == [0, 1, 2, 4, 3]


def differing() -> Iterator[Any]:
    """Values that are different `_id`s to MongoDB, but similar otherwise."""
    yield from (1, "1", True, None, [], {}, b"1", "", Timestamp(1, 1), ObjectId(bytes(12)))
    yield from (1.5, math.inf, -math.inf, math.nan, Decimal128("1.25"), 2**53, 2**53 + 1, DatetimeMS(1))
    yield from ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": "1", "b": 2}, [1, 2], [2, 1], "x" * 200, "x" * 201)


def test_versions_that_differ_have_different_texts() -> None:
    """For documents at one date, and for one document at several dates."""
    ids = list(differing())
    texts = {position_of(DatetimeMS(ms), value).text() for value in ids for ms in (0, 1, -1)}
    assert len(texts) == 3 * len(ids)
