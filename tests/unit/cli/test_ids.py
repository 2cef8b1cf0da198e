import pytest

from etl.cli.ids import readings

OID = "65a5000000000000000000a1"


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (f"ObjectId('{OID}')", f'{{"$oid": "{OID}"}}'),
        (OID, f'{{"$oid": "{OID}"}}'),
        (f'{{"$oid": "{OID}"}}', f'{{"$oid": "{OID}"}}'),
        ("42", '{"$numberInt": "42"}'),
        ("doc-1", '"doc-1"'),
        ('"doc-1"', '"doc-1"'),
        ('{"a": 1}', '{"a": {"$numberInt": "1"}}'),
        ("{broken", '"{broken"'),
    ],
)
def test_an_id_is_read_as_people_write_it(words: str, first: str) -> None:
    """ObjectId, its digits, Extended JSON or plain text."""
    assert readings(words)[0] == first


def test_what_looks_like_another_type_may_be_text() -> None:
    """A text `_id` of 24 hex digits, or one that is a number, is found too."""
    assert readings(OID)[-1] == f'"{OID}"'
    assert readings("42")[-1] == '"42"'
