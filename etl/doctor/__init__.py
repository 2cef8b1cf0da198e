"""The checks of `etl doctor`: settings and both servers, with a command to type for each problem.

They write nothing and retry nothing. One file per subject, one function per check.
"""

import time
from collections.abc import Mapping

from etl.cache.client import Wire
from etl.cache.keys import state_keys
from etl.doctor import clocks, keys, mongodb, redis_server, ttls
from etl.doctor.finding import Finding, Level
from etl.mongo.reader import MongoReader
from etl.settings import Settings

__all__ = ["Finding", "Level", "examine"]


def examine(
    settings: Settings,
    sources: Mapping[str, MongoReader],
    wire: Wire,
    local_clock: clocks.Clock = time.time,
) -> list[Finding]:
    """Run every check; a server that does not answer is a finding, and further checks of it are skipped.

    Args:
        settings: the settings to check the servers against.
        sources: the configured collections by name.
        wire: a connection to Redis.
        local_clock: the clock of this machine, in seconds since the epoch.
    """
    found = [*ttls.examine(settings), *mongodb.examine(settings, sources), *redis_server.examine(wire)]
    away = {finding.subject for finding in found if finding.check == "connection" and finding.remedy}
    if "Redis" not in away:
        names = [collection.name for collection in settings.collections]
        found += keys.examine(wire, {name: state_keys(name, settings.namespace) for name in names})
    readable = {
        "MongoDB": lambda: next(iter(sources.values())).clock() / 1000,
        "Redis": lambda: wire.now() / 1e6,
    }
    return [
        *found,
        *clocks.examine({name: readable[name] for name in sorted(readable.keys() - away)}, local_clock),
    ]
