"""`etl status`: where each collection stands."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from etl.cli import output
from etl.cli.runtime import Runtime, json_option, pass_runtime
from etl.errors import EtlError

if TYPE_CHECKING:
    from etl.app import CollectionStatus

_UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


@click.command()
@click.argument("collections", nargs=-1, metavar="[COLLECTION]...")
@json_option
@pass_runtime
def status(runtime: Runtime, collections: tuple[str, ...], *, as_json: bool) -> int:
    """Show where each collection stands.

    Position, lag, last cycle and next one, dead letters, deferred, unreachable, who holds the lease,
    queues. The lag is how long the oldest change that no cycle has reached has waited.
    """
    with runtime.app() as app:
        found = app.status(collections)
    if as_json:
        output.document({"collections": [one.as_dict() for one in found]})
    else:
        for one in found:
            _show(one)
    problems = sorted({one.error for one in found if one.error})
    for problem in problems:
        output.error(f"the lag is not known: {problem}")
    return EtlError.exit_code if problems else 0


def duration(seconds: float) -> str:
    """A length of time in its two greatest units: `3 d 4 h`."""
    left, parts = int(seconds), []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def _show(one: "CollectionStatus") -> None:
    output.heading(one.collection)
    for label, text in _lines(one):
        output.say(f"  {label:13} {text}")


def _lines(one: "CollectionStatus") -> Iterator[tuple[str, str]]:
    yield "position", f"{one.last_timestamp}, {one.last_id}" if one.last_timestamp else "none yet"
    yield "lag", "not known" if one.lag_seconds is None else duration(one.lag_seconds)
    yield "last cycle", _last_cycle(one)
    yield "last success", _ago(one.seconds_since_success)
    yield "next cycle", one.next_cycle or "when a daemon starts"
    yield (
        "dead letters",
        str(one.dead_letters)
        + (
            f", and {one.dead_letters_beyond} refusals more that were counted only"
            if one.dead_letters_beyond
            else ""
        ),
    )
    yield "deferred", str(one.deferred_count)
    for waiting in one.deferred:
        yield "", f"{waiting['id']} since {waiting['since']}, for {waiting['lock']}"
    yield "unreachable", "not known" if one.unreachable is None else str(one.unreachable)
    yield "lease", f"held by {one.lease_holder}" if one.lease_holder else "free"
    yield "daemon", one.leader or "none has the turn"
    for scan in one.scans:
        total = "" if scan["total"] is None else f" of about {scan['total']}"
        at_work = f"{scan['holder']} is at work" if scan["holder"] else "interrupted, it resumes"
        yield scan["mode"].replace("_", " "), f"{scan['done']}{total} documents, {at_work}"
    if one.reconciliation:
        found = one.reconciliation
        wrong = found["different"] + found["missing"] + found["orphaned"]
        yield "reconciled", f"{found['ended']}, {wrong} wrong, {found['repaired']} repaired"
    for queue, length in one.queues.items():
        yield "queue", f"{queue} holds {length}"


def _last_cycle(one: "CollectionStatus") -> str:
    cycle = one.last_cycle
    if cycle is None:
        return "none yet"
    done = f"{cycle['records_processed']} records in {cycle['sync_duration_ms']} ms"
    return f"{cycle['status']}, began {cycle['began']}, {done}" + (
        f": {cycle['error']}" if cycle["error"] else ""
    )


def _ago(seconds: float | None) -> str:
    return "none in the history" if seconds is None else f"{duration(seconds)} ago"
