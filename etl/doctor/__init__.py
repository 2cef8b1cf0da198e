"""The doctor: looks at the settings and at both servers, and says what to type where something is wrong.

It writes nothing and tries nothing twice. One file per part of the body, one function per finding.
"""

import time
from collections.abc import Iterator, Mapping

from etl.doctor import clocks, keys, lives, mongodb, redis_server
from etl.doctor.finding import Finding, Level
from etl.redis_wire import Wire
from etl.settings import Settings

__all__ = ["Finding", "Level", "examine"]


def examine(
    settings: Settings, sources: Mapping[str, mongodb.Source], wire: Wire, here: clocks.Clock = time.time
) -> Iterator[Finding]:
    """Every check, one after the other; no server that is away makes it raise.

    Args:
        settings: what the servers are measured against.
        sources: the configured collections by name.
        wire: a connection to Redis.
        here: the clock of this machine, in seconds since the epoch.
    """
    yield from lives.examine(settings)
    yield from mongodb.examine(settings, sources)
    yield from redis_server.examine(wire)
    yield from keys.examine(wire, list(sources))
    yield from clocks.examine(
        {
            "MongoDB": lambda: next(iter(sources.values())).clock() / 1000,
            "Redis": lambda: redis_server.clock(wire),
        },
        here,
    )
