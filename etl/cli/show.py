"""`etl show`: one entry of the cache."""

from typing import TYPE_CHECKING

import click

from etl.cli import entries, output
from etl.cli.runtime import Runtime, json_option, pass_runtime
from etl.errors import EtlError
from schemas.documents import family_of

if TYPE_CHECKING:
    from etl.app import Shown


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
        key = entries.key_of(words)  # the settings name further families
        shown = app.show(key)
    if shown is None:
        raise EtlError(f"{key}: no such key in Redis: it has expired or was never written (try: etl sync)")
    if as_json:
        output.document(as_document(shown))
    else:
        show_entry(shown)


def as_document(shown: "Shown") -> dict[str, object]:
    """The entry as `--json` prints it; `ttl_ms` is null for one that does not expire."""
    family = family_of(shown.key)
    return {
        "key": shown.key,
        "family": family.name if family else None,
        "type": shown.type,
        "ttl_ms": shown.ttl_ms,
        "value": entries.decoded(shown.value),
    }


def show_entry(shown: "Shown") -> None:
    """Print an entry: a line about the key, then its value."""
    output.heading(shown.key)
    ttl = "no TTL" if shown.ttl_ms is None else f"{-(-shown.ttl_ms // 1000)} s left"
    output.say(f"  {shown.type}, {ttl}")
    for line in entries.lines(entries.decoded(shown.value)):
        output.say(f"  {line}")
