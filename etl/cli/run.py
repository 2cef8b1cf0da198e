"""`etl run`: the daemon."""

import logging
import os
import signal
from types import FrameType

import click

from etl import logs
from etl.cli.runtime import Runtime, all_is_loaded, pass_runtime


@click.command()
@pass_runtime
def run(runtime: Runtime) -> None:
    """Run as a daemon: the first cycle at once, then one every interval.

    It waits for servers that are away, and answers /healthz, /readyz, /status and /metrics over HTTP.
    Ctrl-C or SIGTERM ends it after the batch under way, a second one at once.
    """
    from etl.daemon.daemon import Daemon  # noqa: PLC0415 (the drivers load slowly, and `--help` does not need them)
    from etl.mongo.client import end_without_waiting  # noqa: PLC0415

    all_is_loaded()
    end_without_waiting()
    settings = runtime.loaded().settings
    detailed = logging.getLogger("etl").isEnabledFor(logging.DEBUG)
    logs.configure(logging.DEBUG if detailed else logging.INFO, settings.log.format)
    daemon = Daemon(settings)

    asked = False

    def ask(number: int, _: FrameType | None) -> None:
        nonlocal asked
        if asked:
            os._exit(128 + number)  # not by the signal's own action: a container's first process has none
        asked = True
        daemon.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    daemon.run()
