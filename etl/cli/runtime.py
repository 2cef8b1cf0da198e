"""Shared by all commands: settings, application, options."""

import gc
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import click
import yaml

from etl.cli import signals
from etl.settings import Loaded, Settings, load_with_origins, yaml_file

if TYPE_CHECKING:
    from etl.app import App

Start = Callable[[Settings], "App"]
_Command = TypeVar("_Command", bound=Callable[..., Any] | click.Command)


def start_app(settings: Settings) -> "App":
    """The application on real servers."""
    from etl.app import App  # noqa: PLC0415 (the drivers load slowly, and `--help` does not need them)
    from etl.mongo.client import end_without_waiting  # noqa: PLC0415

    collect_garbage()
    end_without_waiting()
    return App(settings)


def collect_garbage() -> None:
    """Enable the garbage collector that `etl.__main__` has disabled; loaded modules are frozen."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


@dataclass(slots=True)
class Runtime:
    """The values of the shared options; click passes it to each command."""

    start: Start
    file: Path | None = None
    overrides: dict[str, Any] = field(default_factory=dict)

    def loaded(self) -> Loaded:
        """The settings in force, with their origins; raises `ConfigurationError`."""
        return load_with_origins(self.file, self.overrides)

    @contextmanager
    def app(self) -> Iterator["App"]:
        """The application, closed afterwards.

        The first Ctrl-C, SIGTERM or SIGHUP stops it between two steps, a second one immediately.
        """
        with self.start(self.loaded().settings) as app, signals.handling(_stop_first(app)):
            yield app


pass_runtime = click.make_pass_decorator(Runtime)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def shared_options(*, hidden: bool) -> Callable[[_Command], _Command]:
    """Add the options that may stand before or after the command's name; only the help of `etl` shows them."""

    def add(command: _Command) -> _Command:
        for option in reversed(_OPTIONS):
            command = option(hidden)(command)
        return command

    return add


def _use_file(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is not None:
        context.ensure_object(Runtime).file = path


def _override(context: click.Context, _: click.Parameter, assignments: tuple[str, ...]) -> None:
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not all(path.split(".")):
            raise click.BadParameter("expected PATH=VALUE, such as schedule.cycle_seconds=300")
        *sections, name = path.split(".")
        place = context.ensure_object(Runtime).overrides
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise click.BadParameter(f"{section} is given a value, so {path} cannot be set")
        place[name] = _value(path, text)


def _value(path: str, text: str) -> Any:
    try:
        return yaml_file.parse(text)
    except yaml.YAMLError:
        # Without what was typed: it may be a secret.
        raise click.BadParameter(f"the value of {path} is not YAML") from None


_OPTIONS: tuple[Callable[[bool], Callable[[Any], Any]], ...] = (
    lambda hidden: click.option(
        "--config",
        metavar="PATH",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=_use_file,
        hidden=hidden,
        help="Settings file; else ETL_CONFIG, else config/etl.yaml.",
    ),
    lambda hidden: click.option(
        "--set",
        metavar="PATH=VALUE",
        multiple=True,
        expose_value=False,
        callback=_override,
        hidden=hidden,
        help="One setting for this command, such as schedule.cycle_seconds=300.",
    ),
    lambda hidden: click.option(
        "--verbose",
        is_flag=True,
        expose_value=False,
        hidden=hidden,
        help="Log in detail and show tracebacks, on stderr.",
    ),
)


def _stop_first(app: "App") -> Callable[[int, FrameType | None], None]:
    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.default_int_handler)
        app.stop()

    return stop
