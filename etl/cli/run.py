"""`etl run`: the daemon."""

import logging
import os
from types import FrameType
from typing import Any

import click

from etl import logs
from etl.cli import signals
from etl.cli.runtime import Runtime, collect_garbage, pass_runtime


@click.command()
@click.option("--follow", is_flag=True, help="Also read the change streams of all collections.")
@pass_runtime
def run(runtime: Runtime, *, follow: bool) -> None:
    """Run the daemon: one cycle now, then one per interval.

    It waits for servers that do not answer, and serves /healthz, /readyz, /status and /metrics over HTTP.
    Ctrl-C, SIGTERM or SIGHUP ends it after the current batch, a second signal immediately.
    """
    daemon: Any = None
    stopping_already = False

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal stopping_already
        if stopping_already:
            os._exit(128 + number)  # the default action of the signal is ignored for PID 1 of a container
        stopping_already = True
        if daemon is not None:
            daemon.stop()

    with signals.handling(stop):
        from etl.daemon.daemon import Daemon  # noqa: PLC0415 (loads slowly, and `--help` does not need it)
        from etl.mongo.client import end_without_waiting  # noqa: PLC0415

        collect_garbage()
        end_without_waiting()
        settings = runtime.loaded().settings
        if follow:
            followed = tuple(one.model_copy(update={"follow": True}) for one in settings.collections)
            settings = settings.model_copy(update={"collections": followed})
        detailed = logging.getLogger("etl").isEnabledFor(logging.DEBUG)
        logs.configure(logging.DEBUG if detailed else logging.INFO, settings.log.format)
        daemon = Daemon(settings)
        if not stopping_already:
            daemon.run()
