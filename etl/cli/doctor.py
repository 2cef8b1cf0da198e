"""`etl doctor`: checks of the settings and of both servers."""

import click

from etl.cli import output
from etl.cli.runtime import Runtime, json_option, pass_runtime

FOUND_SOMETHING = 3
"""Exit code."""


@click.command()
@json_option
@pass_runtime
def doctor(runtime: Runtime, *, as_json: bool) -> int:
    """Check settings and servers; print a remedy for each problem.

    Connections, versions, role, mapping, index, types of the timestamps, clocks, Redis eviction and persistence,
    TTLs against the cycle, the ETL's own keys. Changes nothing. Ends with 3 when it finds a problem.
    """
    with runtime.app() as app, output.progress("Checking"):
        found = app.doctor()
    wrong = [one for one in found if one.level == "finding"]
    if as_json:
        output.document({"healthy": not wrong, "checks": [one.as_dict() for one in found]})
    else:
        rows = [(one.level, one.check, one.subject, one.text) for one in found if one not in wrong]
        output.table(("result", "check", "of", "what"), rows)
        for one in wrong:
            where = "remedy, in mongosh" if (one.remedy or "").startswith("db.") else "remedy"
            output.say(f"\n{one.subject}: {one.text}\n  {where}: {one.remedy}")
    return FOUND_SOMETHING if wrong else 0
