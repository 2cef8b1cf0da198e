"""Generated values of every BSON type."""

import json
import re
from decimal import Decimal
from typing import Any

from bson import Decimal128, Int64
from hypothesis import given
from hypothesis import strategies as st

from schemas.values import json_text, text

_SHORTEST = re.compile(r"(?!-0$)-?(0|[1-9]\d*)(\.\d*[1-9])?")

_floats = st.floats(allow_nan=False, allow_infinity=False)
_decimals = st.builds(
    lambda digits, exponent: Decimal128(Decimal(digits).scaleb(exponent)),
    st.integers(-(10**28) + 1, 10**28 - 1),
    st.integers(-400, 400),
)
_longs = st.integers(-(2**63), 2**63 - 1)
_plain = st.none() | st.booleans() | _longs | st.text()


def _nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
        max_leaves=12,
    )


def _exact(value: Any) -> Any:
    """The value as `_read` returns it: numbers as tagged Decimals, objects as pairs in order."""
    match value:
        case dict():
            return ("object", [(name, _exact(item)) for name, item in value.items()])
        case list():
            return [_exact(item) for item in value]
        case Decimal128():
            return ("number", value.to_decimal())
        case int() | float() if not isinstance(value, bool):
            return ("number", Decimal(repr(value)))
    return value


def _read(written: str) -> Any:
    return json.loads(
        written,
        parse_int=lambda digits: ("number", Decimal(digits)),
        parse_float=lambda digits: ("number", Decimal(digits)),
        object_pairs_hook=lambda pairs: ("object", pairs),
    )


@given(_nested(_plain | _longs.map(Int64) | _floats | _decimals))
def test_json_decodes_to_the_same_value(value: Any) -> None:
    """Text, order of fields, and every digit of every number."""
    assert _read(json_text(value)) == _exact(value)


@given(_nested(_plain))
def test_json_is_compact(value: Any) -> None:
    """Without fractions it is what the standard library writes, without spaces and escapes."""
    assert json_text(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@given(_floats | _longs | _decimals)
def test_number_has_its_shortest_form(value: Any) -> None:
    """Without exponent, trailing zero, leading zero or negative zero; the same inside JSON."""
    assert _SHORTEST.fullmatch(text(value))
    assert json_text([value]) == f"[{text(value)}]"


@given(_floats)
def test_float_decodes_to_itself(value: float) -> None:
    """From its shortest form."""
    assert float(text(value)) == value
