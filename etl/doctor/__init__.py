"""The doctor: looks at the settings and at both servers, and says what to type where something is wrong.

It writes nothing and tries nothing twice. One file per part of the body, one function per finding.
"""

import time
from collections.abc import Mapping

from etl.cache.client import Wire
from etl.cache.keys import state_keys
from etl.doctor import clocks, keys, lives, mongodb, redis_server
from etl.doctor.finding import Finding, Level
from etl.settings import Settings

__all__ = ["Finding", "Level", "examine"]


def examine(
    settings: Settings, sources: Mapping[str, mongodb.Source], wire: Wire, here: clocks.Clock = time.time
) -> list[Finding]:
    """Every check; a server that is away is a finding, and is waited for only once.

    Args:
        settings: what the servers are measured against.
        sources: the configured collections by name.
        wire: a connection to Redis.
        here: the clock of this machine, in seconds since the epoch.
    """
    found = [*lives.examine(settings), *mongodb.examine(settings, sources), *redis_server.examine(wire)]
    away = {finding.subject for finding in found if finding.check == "connection" and finding.remedy}
    if "Redis" not in away:
        names = {one.name: state_keys(one.name, settings.namespace) for one in settings.collections}
        found += keys.examine(wire, names)
    readable = {
        "MongoDB": lambda: next(iter(sources.values())).clock() / 1000,
        "Redis": lambda: redis_server.clock(wire),
    }
    return [*found, *clocks.examine({name: readable[name] for name in sorted(readable.keys() - away)}, here)]
