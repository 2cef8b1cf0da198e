"""`etl status`: the state of each collection."""

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
    """Show the state of each collection.

    Position, lag, last and next cycle, dead letters, deferred and unreachable documents, lease holder, leading daemon,
    backfill in progress, last reconciliation, queues. The lag is the age of the oldest change that is not applied yet.
    """
    with runtime.app() as app:
        statuses = app.status(collections)
    if as_json:
        output.document({"collections": [collection.as_dict() for collection in statuses]})
    else:
        for collection in statuses:
            _show(collection)
    problems = sorted({collection.error for collection in statuses if collection.error})
    for problem in problems:
        output.error(f"the lag is unknown: {problem}")
    return EtlError.exit_code if problems else 0


def duration(seconds: float) -> str:
    """A duration in its two largest units: `3 d 4 h`."""
    left, parts = int(seconds), []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def _show(status: "CollectionStatus") -> None:
    output.heading(status.collection)
    for label, text in _lines(status):
        output.say(f"  {label:13} {text}")


def _lines(status: "CollectionStatus") -> Iterator[tuple[str, str]]:
    yield "position", f"{status.last_timestamp}, {status.last_id}" if status.last_timestamp else "none yet"
    yield "lag", "unknown" if status.lag_seconds is None else duration(status.lag_seconds)
    yield "last cycle", _last_cycle(status)
    yield "last success", _ago(status.seconds_since_success)
    yield "next cycle", status.next_cycle or "when a daemon starts"
    yield (
        "dead letters",
        str(status.dead_letters)
        + (
            f", and {status.dead_letters_beyond} more, counted but not kept"
            if status.dead_letters_beyond
            else ""
        ),
    )
    yield "deferred", str(status.deferred_count)
    for waiting in status.deferred:
        yield "", f"{waiting['id']} since {waiting['since']}, for {waiting['lock']}"
    yield "unreachable", "unknown" if status.unreachable is None else str(status.unreachable)
    yield "lease", f"held by {status.lease_holder}" if status.lease_holder else "free"
    yield "daemon", status.leader or "none"
    if status.follow:
        lag = status.follow["lag_seconds"]
        yield "follower", status.follow["state"] + (f", {duration(lag)} behind" if lag else "")
    for scan in status.scans:
        total = "" if scan["total"] is None else f" of about {scan['total']}"
        at_work = f"{scan['holder']} is at work" if scan["holder"] else "interrupted, resumes"
        yield scan["mode"].replace("_", " "), f"{scan['done']}{total} documents, {at_work}"
    if status.reconciliation:
        found = status.reconciliation
        wrong = found["different"] + found["missing"] + found["orphaned"]
        yield "reconciled", f"{found['ended']}, {wrong} wrong, {found['repaired']} repaired"
    for queue, length in status.queues.items():
        yield "queue", f"{queue} holds {length}"


def _last_cycle(status: "CollectionStatus") -> str:
    cycle = status.last_cycle
    if cycle is None:
        return "none yet"
    done = f"{cycle['records_processed']} records in {cycle['sync_duration_ms']} ms"
    return f"{cycle['status']}, began {cycle['began']}, {done}" + (
        f": {cycle['error']}" if cycle["error"] else ""
    )


def _ago(seconds: float | None) -> str:
    return "none recorded" if seconds is None else f"{duration(seconds)} ago"
