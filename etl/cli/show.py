"""`etl show`: one entry of the cache; its key from command-line arguments, and its value as text."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from etl.cli import output
from etl.cli.runtime import Runtime, json_option, pass_runtime
from etl.errors import ConfigurationError, EtlError
from etl.text import counted
from schemas.documents import FAMILIES, family_of
from schemas.families import Family

if TYPE_CHECKING:
    from etl.app import Shown

_LINE_WIDTH: Final = 88
"""Longer JSON is indented."""


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="FAMILY PART... | KEY")
@json_option
@pass_runtime
def show(runtime: Runtime, words: tuple[str, ...], *, as_json: bool) -> None:
    """Show one entry: key, type, remaining TTL, decoded value.

    Give its family and parts, or its full key:

    \b
      etl show config:api openai
      etl show mcp:tool content getContent '{"limit":10}'
      etl show config:api:openai
    """  # noqa: D301 (click keeps the lines of a paragraph that starts with a backspace)
    with runtime.app() as app:
        key = key_of(words)  # the settings name further families
        shown = app.show(key)
    if shown is None:
        raise EtlError(f"{key}: no such key in Redis: it has expired or was never written (try: etl sync)")
    if as_json:
        family = family_of(shown.key)
        output.document(
            {
                "key": shown.key,
                "family": family.name if family else None,
                "type": shown.type,
                "ttl_ms": shown.ttl_ms,
                "value": decoded(shown.value),
            }
        )
    else:
        show_entry(shown)


def show_entry(shown: "Shown") -> None:
    """Print an entry: a line about the key, then its value."""
    output.heading(shown.key)
    ttl = "no TTL" if shown.ttl_ms is None else f"{-(-shown.ttl_ms // 1000)} s left"
    output.say(f"  {shown.type}, {ttl}")
    for line in value_lines(shown.value):
        output.say(f"  {line}")


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
        count = counted(len(family.parts), "part")
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


def value_lines(value: Any) -> Iterator[str]:
    """A value of Redis as lines: fields aligned, list members numbered, JSON indented."""
    match decoded(value):
        case dict() as fields:
            labels: list[tuple[str, Any]] = list(fields.items())
        case list() as members:
            labels = [(f"{number}.", member) for number, member in enumerate(members, 1)]
        case text:
            labels = [("value", text)]
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
    return short if len(short) <= _LINE_WIDTH else json.dumps(value, ensure_ascii=False, indent=2)
