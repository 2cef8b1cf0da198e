"""`etl try`: documents beside what they become."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from etl.cli import ids, output
from etl.cli.runtime import Runtime, json_option, pass_runtime
from etl.cli.show import value_lines
from etl.errors import EtlError

if TYPE_CHECKING:
    from etl.transform.preview import Effect, Preview

_LONGEST = 160
"""A longer value is cut on a line."""


@click.command("try", cls=ids.IdCommand)
@click.argument("collection")
@click.argument("words", nargs=-1, metavar="[ID]...")
@click.option(
    "--limit",
    type=click.IntRange(1, 500),
    default=5,
    show_default=True,
    metavar="N",
    help="Number of documents, chosen at random; without IDs only.",
)
@json_option
@pass_runtime
def try_(runtime: Runtime, collection: str, words: tuple[str, ...], limit: int, *, as_json: bool) -> None:
    """Show documents beside what they become; writes nothing.

    The way to write a mapping (`fields` of a collection): each document as MongoDB holds it, as it is read, and the
    keys and values that it fills, or each error. ID is as in `etl trace`.
    """
    with runtime.app() as app:
        previews = app.preview(collection, [text for word in words for text in ids.possible_ids(word)], limit)
    if not previews:
        raise EtlError(f"{collection}: no such document" if words else f"{collection} has no documents")
    if as_json:
        output.document(
            {
                "collection": collection,
                "documents": [shown.as_dict() for shown in previews],
            }
        )
        return
    for shown in previews:
        output.heading(f"{collection} {shown.id}")
        for line in _lines(shown):
            output.say(f"  {line}")


def _lines(shown: "Preview") -> Iterator[str]:
    yield "in MongoDB"
    yield from (f"  {name}: {_short(value)}" for name, value in shown.document.items())
    yield "read as"
    yield from (f"  {name}: {_short(value)}" for name, value in shown.fields.items())
    if shown.reason is not None:
        yield f"invalid: {shown.reason}"
        yield from (f"  {error['field']}: {error['problem']}" for error in shown.errors)
    for effect in shown.effects:
        yield f"{effect.does} {effect.key}{_life(effect)}"
        if effect.value is not None:
            yield from (f"  {line}" for line in value_lines(effect.value))
    if shown.lock is not None:
        yield f"deferred while {shown.lock} exists"


def _life(effect: "Effect") -> str:
    return "" if effect.ttl is None else f" for {effect.ttl} s"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
