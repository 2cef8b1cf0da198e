"""Compare the clocks of MongoDB, Redis and this machine.

Each is read three times and the fastest answer counts, as in NTP: the error of a reading is half the
round-trip time.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Final, NamedTuple

from etl.doctor.finding import Finding, note, ok, problem
from etl.errors import EtlError

Clock = Callable[[], float]
"""Returns seconds since the epoch; may raise an EtlError."""

TOLERANCE_SECONDS: Final = 1.0
_TRIES: Final = 3


class _Reading(NamedTuple):
    """Offset of a clock from this machine's clock, and the maximum error of the offset, in seconds."""

    offset: float
    error: float


def examine(clocks: Mapping[str, Clock], local_clock: Clock) -> Iterator[Finding]:
    """Compare all clocks; one that cannot be read is a note."""
    readings = {"this machine": _Reading(0.0, 0.0)}
    for name, clock in clocks.items():
        try:
            readings[name] = min((_read(clock, local_clock) for _ in range(_TRIES)), key=lambda r: r.error)
        except EtlError as error:
            yield note("clocks", name, f"not checked: {error}")
    offsets = ", ".join(f"{name} {r.offset:+z.1f} s" for name, r in readings.items() if name in clocks)
    if any(_apart(a, b) for a, b in combinations(readings.values(), 2)):
        yield problem(
            "clocks",
            "clocks",
            f"they differ by more than {TOLERANCE_SECONDS:.0f} s; against this machine: {offsets}",
            "sudo timedatectl set-ntp true, on the machine whose clock is off",
        )
    elif offsets:
        yield ok("clocks", "clocks", f"against this machine: {offsets}")


def _read(clock: Clock, local_clock: Clock) -> _Reading:
    sent = local_clock()
    answer = clock()
    error = (local_clock() - sent) / 2
    return _Reading(answer - sent - error, error)


def _apart(one: _Reading, other: _Reading) -> bool:
    return abs(one.offset - other.offset) - one.error - other.error > TOLERANCE_SECONDS
