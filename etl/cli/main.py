"""The command `etl`: its options, its commands, its error handling."""

import logging
import signal
import sys
import traceback
from collections.abc import Sequence
from itertools import takewhile
from typing import NoReturn

import click

from etl import logs
from etl.cli import output, signals
from etl.cli.backfill import backfill
from etl.cli.config import config
from etl.cli.dead_letters import dead_letters
from etl.cli.demo import demo
from etl.cli.doctor import doctor
from etl.cli.follow import follow
from etl.cli.health import health
from etl.cli.history import history
from etl.cli.init import init
from etl.cli.purge import purge
from etl.cli.refresh import refresh
from etl.cli.run import run as run_
from etl.cli.runtime import Runtime, Start, shared_options, start_app
from etl.cli.show import show
from etl.cli.status import status
from etl.cli.sync import sync
from etl.cli.trace import trace
from etl.cli.try_ import try_
from etl.cli.verify import verify
from etl.errors import EtlError, Interrupted, error_location

_COMMANDS = (
    *(run_, sync, follow, backfill, status, history, show, trace, verify),
    *(refresh, dead_letters, init, try_, doctor, health, config, purge, demo),
)


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done; 1 failed; 2 wrong usage or settings; 3 verify or doctor found"
    " something; 75 another holder is syncing.",
)
@click.version_option(package_name="promptcontent-etl", prog_name="etl", message="%(prog)s %(version)s")
@shared_options(hidden=False)
@click.pass_context
def etl(context: click.Context) -> None:
    """Keep Redis caches true to MongoDB."""
    if (
        context.invoked_subcommand != run_.name
    ):  # `run` handles signals itself, also those that arrive while it loads
        context.with_resource(signals.handling(signal.default_int_handler))
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _command in _COMMANDS:
    etl.add_command(shared_options(hidden=True)(_command))


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    output.open_streams()
    code = run(sys.argv[1:])
    output.end_streams()
    sys.exit(code)


def run(arguments: Sequence[str], start: Start = start_app) -> int:
    """Run one command line and return its exit code.

    Every error becomes one line on stderr; with `--json` stdout is one JSON document also then.
    `start` builds the application from the settings.
    """
    flags = frozenset(takewhile(lambda argument: argument != "--", arguments))
    # Without --verbose: the answer or one error line, and warnings.
    logs.configure(logging.DEBUG if "--verbose" in flags else logging.WARNING)
    output.never_fail_to_encode()
    try:
        code = etl.main([*arguments], "etl", standalone_mode=False, obj=Runtime(start))
    except BrokenPipeError:
        return EtlError.exit_code  # the reader has closed the pipe (`etl … | head`): no message
    except Exception as error:  # noqa: BLE001 (last resort: one line instead of a traceback)
        if "--verbose" in flags:
            traceback.print_exc()
        message, code = _explain(error)
        output.error(message, as_json="--json" in flags)
    return int(code or 0)


def _explain(error: Exception) -> tuple[str, int]:
    """The message and the exit code of an error."""
    match error:
        case EtlError():
            return str(error), error.exit_code
        case click.Abort():
            return "interrupted", Interrupted.exit_code
        case click.UsageError():
            command = error.ctx.command_path if error.ctx else "etl"
            return f"{error.format_message()} (see: {command} --help)", error.exit_code
        case click.ClickException():
            return error.format_message(), error.exit_code
        case _:
            return f"{error_location(error)}; --verbose shows the traceback, please report it", 1
