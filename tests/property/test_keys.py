"""Keys of generated texts and parameters."""

from typing import Any
from unicodedata import normalize
from urllib.parse import unquote

from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.families import CONTRACT, Family
from schemas.keys import component, params_hash, segmento_hash

# Mostly special characters of keys and patterns, so that near misses are generated often.
_special = st.sampled_from("ab%:{}*?[]\\ 23A5\u0301\u00e1\u3000")
_texts = st.text(_special | st.characters(exclude_categories=["Cs"]))
_numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
_json = st.recursive(
    st.none() | st.booleans() | _numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def _same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON; unlike in Python, `true` and 1 are different."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _parts(family: Family) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({part: _json if part == "params" else _texts for part in family.parts})


def _alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(
        _same(one[part], other[part])
        if part == "params"
        else normalize("NFC", one[part]) == normalize("NFC", other[part])
        for part in one
    )


@given(st.data())
def test_different_parts_give_different_keys(data: st.DataObject) -> None:
    """Keys are equal exactly if their families and, after NFC, all parts are equal."""
    one, other = data.draw(st.sampled_from(CONTRACT)), data.draw(st.sampled_from(CONTRACT))
    these, those = data.draw(_parts(one)), data.draw(_parts(other))
    assert (one.key(**these) == other.key(**those)) == (one is other and _alike(these, those))


@given(st.lists(_texts, min_size=2, max_size=2), st.lists(_texts, min_size=2, max_size=2))
def test_joined_components_cannot_be_confused(one: list[str], other: list[str]) -> None:
    """`a:` and `b` differ from `a` and `:b`."""
    assume([normalize("NFC", part) for part in one] != [normalize("NFC", part) for part in other])
    assert ":".join(map(component, one)) != ":".join(map(component, other))


@given(_texts)
def test_component_decodes_to_its_text_in_nfc(value: str) -> None:
    assert unquote(component(value)) == normalize("NFC", value)


@given(_texts)
def test_unicode_composition_does_not_change_a_key(value: str) -> None:
    composed, decomposed = normalize("NFC", value), normalize("NFD", value)
    assert component(composed) == component(decomposed)
    assert segmento_hash(composed) == segmento_hash(decomposed)


@given(_json, _json)
def test_params_have_the_same_hash_exactly_if_their_json_is_equal(one: Any, other: Any) -> None:
    """1 and 1.0 are equal."""
    assert (params_hash(one) == params_hash(other)) == _same(one, other)


@given(st.dictionaries(st.text(), _json))
def test_order_of_params_does_not_change_the_hash(params: dict[str, Any]) -> None:
    assert params_hash(params) == params_hash(dict(reversed(params.items())))
