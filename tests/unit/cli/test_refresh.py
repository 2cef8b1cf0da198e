import json

from etl.errors import ConfigurationError
from etl.model.report import RefreshReport
from tests.unit.cli.conftest import Etl, FakeApp

REPORT = RefreshReport(family="config:api", name="openai", written=1, evicted=0, rejected=0, deferred=0)


def test_a_refresh_is_told_in_one_line(etl: Etl) -> None:
    """Family, name and counts."""
    app = FakeApp(REPORT)
    result = etl("refresh", "config:api", "openai", app=app)
    assert result.out == "config:api openai: 1 written, 0 evicted, 0 rejected, 0 deferred\n"
    assert app.asked == [("refresh", "config:api", "openai")]


def test_a_whole_family_is_refreshed_without_a_name(etl: Etl) -> None:
    """NAME may be left out."""
    app = FakeApp(REPORT)
    assert etl("refresh", "config:api", app=app).code == 0
    assert app.asked == [("refresh", "config:api", None)]


def test_json_is_one_document(etl: Etl) -> None:
    """`--json` gives the same as a document."""
    result = etl("refresh", "config:api", "openai", "--json", app=FakeApp(REPORT))
    assert json.loads(result.out) == {
        "family": "config:api",
        "name": "openai",
        "written": 1,
        "evicted": 0,
        "rejected": 0,
        "deferred": 0,
    }


def test_an_unknown_family_is_refused(etl: Etl) -> None:
    """Exit code 2, the known families named, nothing done."""
    app = FakeApp(REPORT)
    result = etl("refresh", "config:apy", app=app)
    assert result.code == 2
    assert "the families are: mcp:tool, " in result.err
    assert app.asked == []


def test_the_application_may_refuse(etl: Etl) -> None:
    """A family that nothing refreshes is refused in the application's words and with its exit code."""
    result = etl("refresh", "etl:last_sync", app=FakeApp(ConfigurationError("nothing fills it")))
    assert (result.code, result.err) == (2, "error: nothing fills it\n")
