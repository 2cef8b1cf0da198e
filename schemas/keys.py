"""The encoding of keys: different components always give different keys.

A component is NFC-normalised. Then separators (`:`), braces of hash tags, pattern characters, white space, controls
and `%` are percent-encoded from their UTF-8. The encoding is reversible.
"""

import re
from collections.abc import Callable
from hashlib import sha256
from types import NoneType
from typing import Any
from unicodedata import normalize
from urllib.parse import quote

import rfc8785
from bson import Decimal128, Int64

from schemas.values import exact, string_text, unicode_text

# The Unicode property White_Space, spelled out: `str.isspace` also counts U+001C to U+001F, and
# the `\s` of `re` follows it. All but U+0020 and U+0085 and above are C0 controls, matched anyway.
_WHITE_SPACE = "\u0009-\u000d\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_CONTROLS = "\u0000-\u001f\u007f-\u009f"
_ENCODED = re.compile(rf"[%:{{}}*?\[\]\\{_WHITE_SPACE}{_CONTROLS}]")

_HASH_DIGITS = 32
_EXACT_INTEGERS = 2**53 - 1


def component(value: str) -> str:
    """One component of a key, percent-encoded.

    Raises:
        ValueError: the text contains a lone surrogate, which UTF-8 cannot encode.
    """
    return _ENCODED.sub(_percent, normalize("NFC", unicode_text(value)))


def segmento_hash(segmento: str) -> str:
    """The hash of an audience segment, 32 hex digits; independent of how accents are composed.

    Raises:
        ValueError: the text contains a lone surrogate, which UTF-8 cannot encode.
    """
    return _digest(normalize("NFC", unicode_text(segmento)).encode())


def params_hash(params: Any) -> str:
    """The hash of the parameters of a call, 32 hex digits; independent of their order.

    BSON values are converted to JSON first (see `schemas.values`).

    Raises:
        ValueError: a value has no JSON form, or is a number with the same RFC 8785 form as another one.
    """
    return _digest(rfc8785.dumps(canonical(params)))


def slot_key(key: str, role: str) -> str:
    """A key of the ETL's own state that changes in one atomic step with `key`.

    Its braces are a hash tag: both keys are in the same slot of a Redis Cluster.
    """
    return f"{{{key}}}:{role}"


def canonical(value: Any) -> Any:
    """A BSON value in the types of RFC 8785: None, bool, int, float, str, list, dict.

    Raises:
        ValueError: a value has no JSON form, or is a number with the same RFC 8785 form as another one.
    """
    write: Callable[[Any], Any] = _CANONICAL.get(type(value), _canonical_string)
    return write(value)


def _canonical_string(value: Any) -> str:
    if (string := string_text(value)) is None:
        raise ValueError(f"{type(value).__name__} has no JSON form")
    return string


def _canonical_object(value: dict[str, Any]) -> dict[str, Any]:
    return {unicode_text(name): canonical(item) for name, item in value.items()}


def _canonical_array(value: list[Any]) -> list[Any]:
    return [canonical(item) for item in value]


def _distinct(value: int) -> int:
    if abs(value) > _EXACT_INTEGERS:
        raise ValueError("an integer beyond 2^53 - 1 has no canonical JSON form")
    return int(value)


def _double(value: float | Decimal128) -> float:
    """RFC 8785 numbers are doubles: a decimal that is not the shortest form of one would share its hash."""
    number = exact(value)
    double = float(number)
    if exact(double) != number:
        raise ValueError("a decimal that is no double has no canonical JSON form")
    return double


def _percent(match: re.Match[str]) -> str:
    return quote(match[0], safe="")


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()[:_HASH_DIGITS]


_CANONICAL: dict[type, Callable[[Any], Any]] = {
    NoneType: lambda _: None,
    bool: bool,
    int: _distinct,
    Int64: _distinct,
    float: _double,
    Decimal128: _double,
    dict: _canonical_object,
    list: _canonical_array,
}
