"""Compare the TTLs of the families with the schedule; from the settings only."""

from collections.abc import Iterator

from etl.doctor.finding import Finding, well, wrong
from etl.settings import FamilySettings, Settings
from schemas.documents import KINDS


def examine(settings: Settings) -> Iterator[Finding]:
    """Each family that documents fill."""
    cycle = settings.schedule.cycle_seconds
    for name in sorted({family.name for kind in KINDS.values() for family in kind.families}):
        yield _life(name, settings.families[name], cycle)


def _life(name: str, life: FamilySettings, cycle: int) -> Finding:
    if life.refresh_seconds is not None:
        return well(
            "ttl", name, f"lives {life.ttl} s, and the daemon refreshes it every {life.refresh_seconds} s"
        )
    if life.ttl is None or life.ttl >= cycle:
        return well("ttl", name, "lives until it is taken" if life.ttl is None else f"lives {life.ttl} s")
    return wrong(
        "ttl",
        name,
        f"lives {life.ttl} s, less than a cycle of {cycle} s, and nothing refreshes it in between",
        f'in config/etl.yaml, families: "{name}": {{ttl: {life.ttl}, refresh_seconds: {_often(life.ttl)}}}',
    )


def _often(ttl: int) -> int:
    """A refresh interval with a margin of a fifth of the TTL: 240 of 300 seconds."""
    return max(1, ttl * 4 // 5)
