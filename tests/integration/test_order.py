"""Our order of BSON values is MongoDB's own: asked of a real server, about generated values."""

import math
from collections.abc import Iterator
from typing import Any

import bson
import pytest
from bson import Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.binary import Binary, UuidRepresentation
from bson.codec_options import CodecOptions
from bson.datetime_ms import DatetimeMS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.collection import Collection
from pymongo.database import Database

from schemas.position import DECODING, LENIENT, id_from_text, id_text, order, position_from_text, position_of
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
    st.builds(Binary, st.binary(max_size=3), st.sampled_from([0, 3, 4, 5, 128])),
    st.uuids(),
    st.binary(min_size=12, max_size=12).map(ObjectId),
    INT64.map(DatetimeMS),
    st.builds(Timestamp, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    st.builds(Regex, st.text("ab", max_size=2), st.sampled_from([0, 2, 8, 10])),
    st.sampled_from([Code(""), Code("a"), Code("ab"), Code("", {}), Code("a", {}), Code("a", {"x": 1})]),
    st.sampled_from([MinKey(), MaxKey()]),
)
NAMES = st.text("ab", max_size=2)
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=5,
)
STANDARD = CodecOptions[Document](uuid_representation=UuidRepresentation.STANDARD)


@pytest.fixture
def scratch(database: Database[Document]) -> Collection[Document]:
    """A place for generated values."""
    return database.get_collection("values", codec_options=STANDARD)


def sorted_by_mongodb(scratch: Collection[Document], values: list[Any]) -> list[int]:
    """The numbers of the values in the server's order; equal ones stay as they were."""
    scratch.delete_many({})
    # Wrapped in a document, as a plain array would be sorted by its smallest member.
    scratch.insert_many([{"_id": number, "value": {"v": value}} for number, value in enumerate(values)])
    return [found["_id"] for found in scratch.find({}, {"_id": 1}).sort({"value": 1, "_id": 1})]


def as_stored(value: Any) -> Any:
    """A value as it comes back from MongoDB."""
    return bson.decode(bson.encode({"v": value}, codec_options=DECODING), LENIENT)["v"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(VALUES, min_size=2, max_size=25))
def test_generated_values_of_every_type(scratch: Collection[Document], values: list[Any]) -> None:
    """Nested, of several types, of numbers that are equal in different types."""
    ours = sorted(range(len(values)), key=lambda number: (order({"v": as_stored(values[number])}), number))
    assert ours == sorted_by_mongodb(scratch, values)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(NUMBERS, min_size=10, max_size=40))
def test_numbers(scratch: Collection[Document], values: list[Any]) -> None:
    """By value, whatever their type; NaN before all, zeros equal."""
    ours = sorted(range(len(values)), key=lambda number: (order({"v": values[number]}), number))
    assert ours == sorted_by_mongodb(scratch, values)


@given(moment=INT64.map(DatetimeMS), document_id=VALUES)
def test_a_position_survives_as_text(moment: DatetimeMS, document_id: Any) -> None:
    """What the checkpoint keeps stands where the document did."""
    position = position_of(moment, as_stored(document_id))
    again = position_from_text(position.text())
    assert again.order() == position.order()
    assert again.name() == position.name()
    assert order(id_from_text(id_text(position.id))) == order(position.id)


def differing() -> Iterator[Any]:
    """Values that MongoDB tells apart as an `_id`, most of them alike in some other way."""
    yield from (1, "1", True, None, [], {}, b"1", "", Timestamp(1, 1), ObjectId(bytes(12)))
    yield from (1.5, math.inf, -math.inf, math.nan, Decimal128("1.25"), 2**53, 2**53 + 1, DatetimeMS(1))
    yield from ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": "1", "b": 2}, [1, 2], [2, 1], "x" * 200, "x" * 201)


def test_versions_that_differ_have_different_names() -> None:
    """Of documents on one date, and of one document on several dates."""
    ids = list(differing())
    names = {position_of(DatetimeMS(ms), as_stored(value)).name() for value in ids for ms in (0, 1, -1)}
    assert len(names) == 3 * len(ids)
