"""`etl refresh`: write a family again from MongoDB."""

import click

from etl.cli import output
from etl.cli.runtime import Runtime, json_option, pass_runtime
from etl.cli.show import family_named
from etl.errors import EtlError


@click.command()
@click.argument("family")
@click.argument("name", required=False)
@json_option
@pass_runtime
def refresh(runtime: Runtime, family: str, name: str | None, *, as_json: bool) -> None:
    """Write a family, or one entry, again from MongoDB.

    The watermark is neither read nor moved.

    \b
      etl refresh config:api
      etl refresh config:api openai
    """  # noqa: D301 (click keeps the lines of a paragraph that starts with a backspace)
    with runtime.app() as app, output.progress(f"Refreshing {family}"):
        family_named(family)  # the settings name further families
        report = app.refresh(family, name)
    if name is not None and not report.documents:
        raise EtlError(f"{family} {name}: no document in MongoDB has this name, so nothing was written")
    if as_json:
        output.document(report.as_dict())
        return
    counts = (
        f"{report.written} written",
        f"{report.evicted} evicted",
        f"{report.rejected} rejected",
        f"{report.deferred} deferred",
    )
    nothing = "" if report.documents else "; MongoDB has no document of this family"
    output.say(f"{family}{f' {name}' if name else ''}: {', '.join(counts)}{nothing}")
