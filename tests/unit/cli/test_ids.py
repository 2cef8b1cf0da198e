from typing import Any

import click
import pytest
from bson import Binary, Decimal128, Int64
from click.testing import CliRunner

from etl.cli.ids import IdCommand, find, possible_ids
from schemas.codec import RawValue
from schemas.ids import id_from_text, id_text, readable_id

OID = "65a5000000000000000000a1"
A_UUID = "12345678-1234-5678-1234-567812345678"


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (f"ObjectId('{OID}')", f'{{"$oid": "{OID}"}}'),
        (f'ObjectId("{OID.upper()}")', f'{{"$oid": "{OID}"}}'),
        (OID, f'{{"$oid": "{OID}"}}'),
        (f'{{"$oid": "{OID}"}}', f'{{"$oid": "{OID}"}}'),
        ("42", '{"$numberInt": "42"}'),
        ("-42", '{"$numberInt": "-42"}'),
        ("4294967296", '{"$numberLong": "4294967296"}'),
        ("44.5", '{"$numberDouble": "44.5"}'),
        ("Long('43')", '{"$numberInt": "43"}'),
        ("doc-1", '"doc-1"'),
        ('"doc-1"', '"doc-1"'),
        ("12 34", '"12 34"'),
        ('{"a": 1}', '{"a": {"$numberInt": "1"}}'),
        ("{broken", '"{broken"'),
        ("true", "true"),
        ('{"$date": "2025-01-15T12:00:00Z"}', '{"$date": {"$numberLong": "1736942400000"}}'),
        (A_UUID, id_text(Binary(bytes.fromhex(A_UUID.replace("-", "")), 4))),
        (f"UUID('{A_UUID}')", id_text(Binary(bytes.fromhex(A_UUID.replace("-", "")), 4))),
        (f'UUID("{A_UUID}")', id_text(Binary(bytes.fromhex(A_UUID.replace("-", "")), 4))),
    ],
)
def test_id_is_accepted_in_each_notation(words: str, first: str) -> None:
    """ObjectId and UUID, their digits, numbers, Extended JSON or plain text."""
    assert possible_ids(words)[0] == first


@pytest.mark.parametrize("words", ["43", "43.0", "NumberLong(43)", "Decimal128('43')", "4.3e1"])
def test_number_stands_for_every_numeric_type(words: str) -> None:
    """They are one `_id` to MongoDB, but each type has a text of its own in Redis."""
    assert {id_text(one) for one in (43, Int64(43), 43.0)} <= {*possible_ids(words)}
    assert any(isinstance(id_from_text(text), Decimal128) for text in possible_ids(words))


@pytest.mark.parametrize(
    "words", [OID, "42", A_UUID, "12345678901234567890", "1E400", f"1E{'9' * 30}", "null", "-", ""]
)
def test_word_is_also_read_as_text(words: str) -> None:
    """The `_id` may be a string of 24 hex digits or of a number."""
    assert possible_ids(words)[-1] == id_text(words)


@pytest.mark.parametrize(
    "words",
    [
        '{"$oid":"zz"}',
        '{"$uuid":5}',
        '{"$binary":1}',
        '{"$timestamp":1}',
        '{"$numberDecimal":"x"}',
        '{"$code":1}',
        '{"$date":"today"}',
        '{"$bson":"AAAA"}',
        '{"$regularExpression":{"pattern":".*","options":""}}',
        '{"$regex":".*"}',
        '{"$gt":1}',
        "[1]",
        '"\\ud800"',
        "[" * 100_000,
    ],
)
def test_invalid_extended_json_is_read_as_text(words: str) -> None:
    """It must reach MongoDB neither as a query operator nor as an error."""
    assert possible_ids(words) == [id_text(words)]


@pytest.mark.parametrize(
    "value",
    [
        "doc",
        43,
        Int64(2**40),
        1.5,
        Binary(bytes(16), 4),
        {"a": Int64(1)},
        None,
        RawValue(2, b"\2\0\0\0\xff\0"),
    ],
)
def test_printed_ids_are_read_back(value: Any) -> None:
    """From the text of a dead letter and, unless it is a `RawValue`, from its readable form."""
    assert id_text(value) in possible_ids(id_text(value))
    if not isinstance(value, RawValue | dict):
        assert id_text(value) in possible_ids(readable_id(value))


@pytest.mark.parametrize(
    "value", [43, Int64(43), 43.0, Decimal128("43"), Decimal128("43.000"), "43", Decimal128("4.3E1")]
)
def test_find_compares_ids_as_mongodb_does(value: Any) -> None:
    """The number 43 has many texts; a malformed text is skipped."""
    others = [id_text(one) for one in (44, "44", None, b"43", {"a": 43})]
    assert find("43", [*others, '{"$oid": "zz"}', id_text(value)]) == id_text(value)
    assert find("43", others) is None
    assert find("43", [id_text("43"), id_text(Int64(43))]) == id_text(Int64(43))


@click.command(cls=IdCommand)
@click.argument("word")
@click.option("--json", "as_json", is_flag=True)
def echo(word: str, *, as_json: bool) -> None:
    """Print the arguments."""
    click.echo(f"{word} {as_json}")


def test_id_that_begins_with_a_dash_gets_a_hint() -> None:
    """An unknown option gets none."""
    run = CliRunner().invoke
    assert "an ID that begins with - comes after --, as in: -- -51" in run(echo, ["-51"]).output
    assert run(echo, ["--json", "--", "-51"]).output == "-51 True\n"
    assert "No such option" in run(echo, ["-x"]).output
