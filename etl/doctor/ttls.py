"""Compare the TTLs of the families with the schedule; from the settings only."""

from collections.abc import Iterator

from etl.doctor.finding import Finding, ok, problem
from etl.settings import FamilySettings, Settings
from schemas.documents import KINDS


def examine(settings: Settings) -> Iterator[Finding]:
    """Check each family that documents are written to."""
    cycle = settings.schedule.cycle_seconds
    for name in sorted({family.name for kind in KINDS.values() for family in kind.families}):
        yield _family(name, settings.families[name], cycle)


def _family(name: str, family: FamilySettings, cycle: int) -> Finding:
    ttl, refresh = family.ttl, family.refresh_seconds
    if refresh is not None:
        return ok("ttl", name, f"TTL {ttl} s, and the daemon refreshes it every {refresh} s")
    if ttl is None or ttl >= cycle:
        return ok("ttl", name, "no TTL: kept until it is popped" if ttl is None else f"TTL {ttl} s")
    return problem(
        "ttl",
        name,
        f"TTL {ttl} s is less than a cycle of {cycle} s, and nothing refreshes it in between",
        f'in config/etl.yaml, families: "{name}": {{ttl: {ttl}, refresh_seconds: {_refresh_interval(ttl)}}}',
    )


def _refresh_interval(ttl: int) -> int:
    """A refresh interval with a margin of a fifth of the TTL: 240 of 300 seconds."""
    return max(1, ttl * 4 // 5)
