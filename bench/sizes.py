"""A backfill, and cycles of 0 and 156 changed documents, at several sizes of the collection.

A backfill sets the checkpoint, then the cycles follow. Every cycle changes the same documents, spread over the
collection: a cycle reads again what changed within the overlap, so other documents would add up from cycle to cycle.
One more cycle runs with MongoDB's profiler on, to count the documents examined.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from pymongo import UpdateOne

from bench.contenders import TWO, Run, backfill, once, run, sync
from bench.documents import document
from bench.meter import Meter
from bench.servers import Bench, Source, Wrong

CHANGED: Final = 156

_APP: Final = "promptcontent-etl"


class Cycles(NamedTuple):
    """Cycles of one kind: the duration of each as reported, and the work of MongoDB for one of them."""

    changed: int
    milliseconds: list[int]
    documents_examined: int
    keys_examined: int
    commands: int


class Size(NamedTuple):
    """The measurements of a collection of one size."""

    documents: int
    backfill: Run
    cycles: list[Cycles]


def sizes(bench: Bench, meter: Meter, wanted: Sequence[int], count: int) -> Iterator[Size]:
    """Measure a backfill and `count` cycles of each kind at each size, the smallest first.

    Raises:
        Wrong: a cycle did not process the changed documents.
    """
    for documents in sorted(wanted):
        source = Source("sizes", documents)
        bench.fill(source)
        filled = run(bench, meter, backfill(bench, source, TWO))
        once(meter, sync(bench, source))  # it catches up with the backfill
        chosen = range(0, documents, max(1, documents // CHANGED))[:CHANGED]
        idle = _cycles(bench, meter, source, count, range(0))
        busy = _cycles(bench, meter, source, count, chosen)
        for number in chosen:  # the next size starts with unchanged documents
            original = document(number)
            bench.collection(source).replace_one({"_id": original["_id"]}, original)
        yield Size(documents, filled, [idle, busy])


def _cycles(bench: Bench, meter: Meter, source: Source, count: int, changed: Sequence[int]) -> Cycles:
    """Measure cycles, each after a change of these documents."""
    taken = [_cycle(bench, meter, source, changed) for _ in range(count)]
    database = bench.mongo[source.database]
    database["system.profile"].drop()
    database.command("profile", 2)
    try:
        _cycle(bench, meter, source, changed)
    finally:
        database.command("profile", 0)
    examined = ("docsExamined", "keysExamined")
    of_cycle = {"ns": bench.collection(source).full_name, "appName": _APP}
    entries = list(database["system.profile"].find(of_cycle, examined))
    if not entries:
        raise Wrong("the profiler has no command of the cycle")
    documents, keys = (sum(e.get(name, 0) for e in entries) for name in examined)
    return Cycles(len(changed), taken, documents, keys, len(entries))


def _cycle(bench: Bench, meter: Meter, source: Source, changed: Sequence[int]) -> int:
    """Change these documents, and return the milliseconds of the next cycle."""
    now = datetime.now(UTC)
    written = {"$set": {"updated_at": now, "mensajes.0.texto": f"Escrito de nuevo a las {now.isoformat()}"}}
    if changed:
        bench.collection(source).bulk_write(
            [UpdateOne({"_id": document(n)["_id"]}, written) for n in changed]
        )
    report: dict[str, Any] = once(meter, sync(bench, source)).answer
    if report["records_processed"] != len(changed) or report["mode"] != "delta":
        raise Wrong(f"a cycle should have processed {len(changed)} documents as a delta: {report}")
    return int(report["sync_duration_ms"])
