"""Command-line arguments to a key, and a cache entry to lines of text."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from etl.errors import ConfigurationError
from schemas.documents import FAMILIES, family_of
from schemas.families import Family


def family_named(name: str) -> Family:
    """The family of this name.

    Raises:
        ConfigurationError: there is none; the message lists all families.
    """
    family = FAMILIES.get(name)
    if family is None:
        raise ConfigurationError(f"unknown family {name!r}; the families are: {', '.join(FAMILIES)}")
    return family


def key_of(words: Sequence[str]) -> str:
    """The key of a family and its parts, or the full key that is given.

    Raises:
        ConfigurationError: unknown family, wrong number of parts, or an invalid part.
    """
    first, *parts = words
    if not parts and first not in FAMILIES and _is_key(first):
        return first
    family = family_named(first)
    if len(parts) != len(family.parts):
        count = f"{len(family.parts)} part{'s' if len(family.parts) > 1 else ''}"
        wanted = " ".join(part.upper() for part in family.parts)
        raise ConfigurationError(f"{family.name} takes {count}: etl show {family.name} {wanted}")
    try:
        return family.key(**{name: _part(name, part) for name, part in zip(family.parts, parts, strict=True)})
    except ValueError as error:
        raise ConfigurationError(f"{family.name}: {error}") from None


def decoded(value: Any) -> Any:
    """A value of Redis with the JSON in its texts decoded."""
    match value:
        case str():
            return _decoded_text(value)
        case dict():
            return {name: _decoded_text(text) for name, text in value.items()}
        case _:
            return [_decoded_text(text) for text in value]


def lines(value: Any) -> Iterator[str]:
    """A decoded value as lines: fields aligned, list members numbered, JSON indented."""
    match value:
        case dict():
            labels: list[tuple[str, Any]] = list(value.items())
        case list():
            labels = [(f"{number}.", member) for number, member in enumerate(value, 1)]
        case _:
            labels = [("value", value)]
    width = max((len(label) for label, _ in labels), default=0)
    for label, inner in labels:
        for number, line in enumerate(_text(inner).split("\n")):
            yield f"{'' if number else label:{width}}  {line}"


def _is_key(word: str) -> bool:
    """Whether `word` is a key of a family or of the ETL's own state, `{etl:last_sync:…}:checkpoint`."""
    return family_of(word.removeprefix("{")) is not None


def _part(name: str, text: str) -> Any:
    if name != "params":
        return text
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError("""params must be JSON, such as '{"limit":10}'""") from None


def _decoded_text(text: str) -> Any:
    """Decode objects and arrays; leave other text unchanged."""
    if not text.startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _text(value: Any) -> str:
    """Compact JSON if it fits one line, as most messages do; else indented."""
    if isinstance(value, str):
        return value
    short = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return short if len(short) <= _LINE else json.dumps(value, ensure_ascii=False, indent=2)


_LINE = 88
