"""`etl trace`: explain one document."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from etl.cli import ids, output
from etl.cli.runtime import Runtime, json_option, pass_runtime

if TYPE_CHECKING:
    from etl.app import KeyStory, Trace

_ROLES = {"fills": "fills", "evicts": "removes", "left": "filled before"}


@click.command(cls=ids.IdCommand)
@click.argument("collection")
@click.argument("word", metavar="ID")
@json_option
@pass_runtime
def trace(runtime: Runtime, collection: str, word: str, *, as_json: bool) -> None:
    """Explain one document: why each of its keys is there or not.

    Shows its keys and what Redis holds of each, dead letter, deferral and lock; the last line gives the reason. ID is
    ObjectId('…') or UUID('…'), their digits, a number, Extended JSON, or plain text.
    """
    with runtime.app() as app:
        found = app.trace(collection, ids.readings(word))
    if as_json:
        output.document(found.as_dict())
        return
    output.heading(f"{found.collection} {found.id}")
    for label, text in _lines(found):
        output.say(f"  {label:13} {text}")
    output.say(found.story)


def _lines(found: "Trace") -> Iterator[tuple[str, str]]:
    yield "in MongoDB", "yes" if found.found else "no"
    if found.found:
        yield "updated", found.updated_at or "no date: only a cold start or a backfill applies it"
        yield "valid", "yes" if found.reason is None else found.reason
    for error in found.errors:
        yield "", f"{error['field']}: {error['problem']}"
    for key in found.keys:
        yield _ROLES[key.role], _key(key)
    if found.dead_letter:
        letter = found.dead_letter
        yield "dead letter", f"since {letter['first_seen']}, attempts {letter['attempts']}"
    if found.lock:
        yield "lock", f"{found.lock} is held by {found.lock_holder}" if found.lock_holder else "free"
    if found.deferred:
        yield "deferred", "yes"
    if found.reached is not None and found.updated_at:
        yield "watermark", "has passed it" if found.reached else "has not reached it"


def _key(key: "KeyStory") -> str:
    held = "absent"
    if key.type is not None:
        held = f"{key.type}, " + ("no TTL" if key.ttl_ms is None else f"{-(-key.ttl_ms // 1000)} s left")
    verdict = "" if key.verdict == "absent" else f"; {key.verdict.replace('_', ' ')}"
    return f"{key.key}: {held}{verdict}" + (f", {key.why}" if key.why else "")
