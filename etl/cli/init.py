"""`etl init`: a settings file for a database that exists."""

from pathlib import Path

import click

from etl.cli import output
from etl.cli.runtime import Runtime, pass_runtime
from etl.errors import ConfigurationError


@click.command()
@click.option(
    "--output",
    "path",
    metavar="PATH",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write it to this file, which must not exist.",
)
@pass_runtime
def init(runtime: Runtime, path: Path | None) -> None:
    """Propose a settings file for the collections of the database.

    Looks at names and types of fields in a sample of each collection, and at the indexes. Prints YAML with comments,
    the command for each index that is missing, and the one for a Redis user. Changes nothing, and asks nothing.
    """
    with runtime.app() as app, output.progress("Looking at the collections"):
        proposal = app.propose()
    if path is None:
        click.echo(proposal, nl=False)
        return
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(proposal)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from None
    head = [
        line.removeprefix("#").removeprefix(" ") for line in proposal.split("\n\n", maxsplit=1)[0].split("\n")
    ]
    output.say(f"{path} is written\n" + "\n".join(head[2:]))
