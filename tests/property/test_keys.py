"""Keys, for all texts and parameters that Hypothesis can think of."""

from typing import Any
from unicodedata import normalize
from urllib.parse import unquote

from hypothesis import assume, given
from hypothesis import strategies as st

from schemas.families import CONTRACT, Family
from schemas.keys import component, params_hash, segmento_hash

# Mostly what keys and patterns are made of, so that near misses are tried as often as far ones.
_telling = st.sampled_from("ab%:{}*?[]\\ 23A5\u0301\u00e1\u3000")
_texts = st.text(_telling | st.characters(exclude_categories=["Cs"]))
_numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
_json = st.recursive(
    st.none() | st.booleans() | _numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


def _same(one: Any, other: Any) -> bool:
    """Whether JSON tells two values apart: unlike Python, it keeps `true` and 1 apart."""
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
    """Two keys are equal exactly when their families and, but for composition, all their parts are."""
    one, other = data.draw(st.sampled_from(CONTRACT)), data.draw(st.sampled_from(CONTRACT))
    these, those = data.draw(_parts(one)), data.draw(_parts(other))
    assert (one.key(**these) == other.key(**those)) == (one is other and _alike(these, those))


@given(st.lists(_texts, min_size=2, max_size=2), st.lists(_texts, min_size=2, max_size=2))
def test_joined_components_cannot_be_confused(one: list[str], other: list[str]) -> None:
    """Joined by colons, components stay apart: `a:` and `b` are not `a` and `:b`."""
    assume([normalize("NFC", part) for part in one] != [normalize("NFC", part) for part in other])
    assert ":".join(map(component, one)) != ":".join(map(component, other))


@given(_texts)
def test_a_component_decodes_to_its_text(value: str) -> None:
    """Percent-decoding gives the NFC text again: nothing is lost, so nothing can meet."""
    assert unquote(component(value)) == normalize("NFC", value)


@given(_texts)
def test_unicode_composition_does_not_change_a_key(value: str) -> None:
    """NFC and NFD of one text are one component and one segment."""
    composed, decomposed = normalize("NFC", value), normalize("NFD", value)
    assert component(composed) == component(decomposed)
    assert segmento_hash(composed) == segmento_hash(decomposed)


@given(_json, _json)
def test_params_share_a_hash_only_if_their_json_is_equal(one: Any, other: Any) -> None:
    """Two parameters have one hash exactly when they are the same JSON, 1 and 1.0 included."""
    assert (params_hash(one) == params_hash(other)) == _same(one, other)


@given(st.dictionaries(st.text(), _json))
def test_the_order_of_params_does_not_change_the_hash(params: dict[str, Any]) -> None:
    """Fields written in another order are the same call."""
    assert params_hash(params) == params_hash(dict(reversed(params.items())))
