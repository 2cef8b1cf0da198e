"""Compare the clocks of MongoDB, Redis and this machine.

Each is read three times and the fastest answer counts, as in NTP: the error of a reading is half the
round-trip time.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Final, NamedTuple

from etl.doctor.finding import Finding, note, well, wrong
from etl.errors import EtlError

Clock = Callable[[], float]
"""Gives seconds since the epoch; may raise an EtlError."""

TOLERANCE_SECONDS: Final = 1.0
_TRIES: Final = 3


class _Reading(NamedTuple):
    """Offset of a clock from this machine's, and the error of that, in seconds."""

    ahead: float
    doubt: float


def examine(clocks: Mapping[str, Clock], here: Clock) -> Iterator[Finding]:
    """All clocks that can be read, and which cannot."""
    readings = {"this machine": _Reading(0.0, 0.0)}
    for name, clock in clocks.items():
        try:
            readings[name] = min((_read(clock, here) for _ in range(_TRIES)), key=lambda r: r.doubt)
        except EtlError as error:
            yield note("clocks", name, f"not looked at: {error}")
    told = ", ".join(f"{name} {r.ahead:+.1f} s" for name, r in readings.items() if name in clocks)
    if any(_apart(a, b) for a, b in combinations(readings.values(), 2)):
        yield wrong(
            "clocks",
            "clocks",
            f"they differ by more than {TOLERANCE_SECONDS:.0f} s; against this machine: {told}",
            "sudo timedatectl set-ntp true, on the machine whose clock is off",
        )
    elif told:
        yield well("clocks", "clocks", f"against this machine: {told}")


def _read(clock: Clock, here: Clock) -> _Reading:
    asked = here()
    told = clock()
    doubt = (here() - asked) / 2
    return _Reading(told - asked - doubt, doubt)


def _apart(one: _Reading, other: _Reading) -> bool:
    return abs(one.ahead - other.ahead) - one.doubt - other.doubt > TOLERANCE_SECONDS
