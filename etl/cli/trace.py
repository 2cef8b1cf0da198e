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
        explained = app.trace(collection, ids.possible_ids(word))
    if as_json:
        output.document(explained.as_dict())
        return
    output.heading(f"{explained.collection} {explained.id}")
    for label, text in _lines(explained):
        output.say(f"  {label:13} {text}")
    output.say(explained.story)


def _lines(trace: "Trace") -> Iterator[tuple[str, str]]:
    yield "in MongoDB", "yes" if trace.found else "no"
    if trace.found:
        yield "updated", trace.updated_at or "no date: only a cold start or a backfill applies it"
        yield "valid", "yes" if trace.reason is None else trace.reason
    for error in trace.errors:
        yield "", f"{error['field']}: {error['problem']}"
    for key in trace.keys:
        yield _ROLES[key.role], _key(key)
    if trace.dead_letter:
        letter = trace.dead_letter
        yield "dead letter", f"since {letter['first_seen']}, attempts {letter['attempts']}"
    if trace.lock:
        yield "lock", f"{trace.lock} is held by {trace.lock_holder}" if trace.lock_holder else "free"
    if trace.deferred:
        yield "deferred", "yes"
    if trace.reached is not None and trace.updated_at:
        yield "watermark", "has passed it" if trace.reached else "has not reached it"


def _key(key: "KeyStory") -> str:
    held = "absent"
    if key.type is not None:
        held = f"{key.type}, " + ("no TTL" if key.ttl_ms is None else f"{-(-key.ttl_ms // 1000)} s left")
    verdict = "" if key.verdict == "absent" else f"; {key.verdict.replace('_', ' ')}"
    return f"{key.key}: {held}{verdict}" + (f", {key.why}" if key.why else "")
