"""`etl doctor`: what is wrong with the set-up, and what to type."""

import click

from etl.cli import output
from etl.cli.runtime import Runtime, json_option, pass_runtime

FOUND_SOMETHING = 3
"""The exit code that says so."""


@click.command()
@json_option
@pass_runtime
def doctor(runtime: Runtime, *, as_json: bool) -> int:
    """Check the set-up, and say what to type where something is wrong.

    Connections, versions, the role, the index, the types of the dates, the clocks, what Redis may
    evict, the life of each family against the cycle, the ETL's own keys. Changes nothing. Ends with
    3 when it finds something.
    """
    with runtime.app() as app, output.progress("Looking"):
        found = app.doctor()
    wrong = [one for one in found if one.level == "finding"]
    if as_json:
        output.document({"healthy": not wrong, "checks": [one.as_dict() for one in found]})
    else:
        rows = [(one.level, one.check, one.subject, one.text) for one in found if one not in wrong]
        output.table(("result", "check", "of", "what"), rows)
        for one in wrong:
            output.say(f"\n{one.subject}: {one.text}\n  type: {one.remedy}")
    return FOUND_SOMETHING if wrong else 0
