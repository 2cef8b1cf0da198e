"""What a cycle costs by the size of the collection: with nothing changed, and with 156 documents changed.

The collection grows from size to size. At each, a backfill of all of it sets the position (its memory is
measured too: it must not grow), then come the cycles. The changed documents are the same ones in every
cycle, spread over the collection, and get the time of the change as `updated_at`: a cycle reads again what
changed within the overlap, which would otherwise add up from cycle to cycle. Cycles are timed without
MongoDB's profiler; one more, with the profiler on, says what was examined.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from pymongo import UpdateOne

from bench.contenders import BACKFILL_ALL, WORKERS, backfill, run, sync
from bench.documents import document
from bench.meter import Memory, Meter
from bench.servers import Bench, Wrong

CHANGED: Final = 156

_APP: Final = "promptcontent-etl"


class Cycles(NamedTuple):
    """Cycles of one kind: how long each took, by its own clock and with the start of the process."""

    changed: int
    milliseconds: list[int]
    wall_milliseconds: list[int]
    documents_examined: int
    keys_examined: int
    commands: int


class Size(NamedTuple):
    """What was measured on a collection of so many documents."""

    documents: int
    backfill_seconds: float
    backfill_memory: Memory
    cycles: list[Cycles]


def sizes(bench: Bench, meter: Meter, wanted: Sequence[int], count: int) -> list[Size]:
    """Measure `count` cycles of each kind at each of the wanted sizes, the smallest first.

    Raises:
        Wrong: a cycle did not do what had changed.
    """
    bench.drop()
    measured = []
    before = 0
    for size in sorted(wanted):
        bench.grow(before, size)
        measured.append(_size(bench, meter, size, count))
        before = size
    return measured


def _size(bench: Bench, meter: Meter, size: int, count: int) -> Size:
    bench.flush()
    filled = run(meter, backfill(bench, BACKFILL_ALL, WORKERS))
    bench.check(size)
    run(meter, sync(bench))  # whatever a backfill leaves to the next cycle is done
    chosen = range(0, size, max(1, size // CHANGED))[:CHANGED]
    idle = _cycles(bench, meter, count, (), lambda: None)
    busy = _cycles(bench, meter, count, chosen, lambda: _change(bench, chosen))
    _restore(bench, chosen)
    return Size(size, filled.wall_seconds, filled.memory, [idle, busy])


def _cycles(
    bench: Bench, meter: Meter, count: int, changed: Sequence[int], change: Callable[[], None]
) -> Cycles:
    own, wall = [], []
    for _ in range(count):
        change()
        measured = run(meter, sync(bench))
        _expect(measured.answer, len(changed))
        own.append(int(measured.answer["sync_duration_ms"]))
        wall.append(round(measured.wall_seconds * 1000))
    change()
    return Cycles(len(changed), own, wall, *_profiled(bench, meter, len(changed)))


def _profiled(bench: Bench, meter: Meter, changed: int) -> tuple[int, int, int]:
    """The documents and keys that one cycle makes MongoDB examine, and its number of commands."""
    database = bench.collection.database
    database["system.profile"].drop()
    database.command("profile", 2, filter={"appName": _APP})
    try:
        _expect(run(meter, sync(bench)).answer, changed)
    finally:
        database.command("profile", 0)
    wanted = {"docsExamined": True, "keysExamined": True}
    entries = list(database["system.profile"].find({"ns": bench.collection.full_name}, wanted))
    if not entries:
        raise Wrong("the profiler saw nothing of the cycle")
    documents, keys = (
        sum(entry.get(name, 0) for entry in entries) for name in ("docsExamined", "keysExamined")
    )
    return documents, keys, len(entries)


def _expect(report: dict[str, Any], changed: int) -> None:
    if report["records_processed"] != changed or report["mode"] != "delta":
        raise Wrong(f"a cycle should have processed {changed} documents as a delta: {report}")


def _change(bench: Bench, numbers: Sequence[int]) -> None:
    """Write these documents again, now."""
    now = datetime.now(UTC)
    written = {"$set": {"updated_at": now, "mensajes.0.texto": f"Escrito de nuevo a las {now.isoformat()}"}}
    bench.collection.bulk_write([UpdateOne({"_id": document(n)["_id"]}, written) for n in numbers])


def _restore(bench: Bench, numbers: Sequence[int]) -> None:
    """Make them what they were, so that the next size begins as this one did."""
    for number in numbers:
        original = document(number)
        bench.collection.replace_one({"_id": original["_id"]}, original)
