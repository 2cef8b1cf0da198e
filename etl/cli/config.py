"""`etl config`: the settings in force."""

import json
from dataclasses import asdict
from importlib import resources

import click

from etl.cli import output
from etl.cli.runtime import Runtime, json_option, pass_runtime
from etl.settings import effective


@click.command()
@click.option("--example", is_flag=True, help="Print a settings file with every default and comments.")
@json_option
@pass_runtime
def config(runtime: Runtime, *, example: bool, as_json: bool) -> None:
    """Show every setting in force and its origin.

    Passwords are masked.
    """
    if example:
        text = resources.files("etl.settings").joinpath("example.yaml").read_text("utf-8")
        click.echo(text, nl=False)
        return
    settings = effective(runtime.loaded())
    if as_json:
        output.document({"settings": [asdict(setting) for setting in settings]})
        return
    output.table(("setting", "value", "source"), [(s.path, _shown(s.value), s.source) for s in settings])


def _shown(value: object) -> str:
    """As in the settings file."""
    return value if isinstance(value, str) else json.dumps(value)
