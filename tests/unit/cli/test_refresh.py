import json

import pytest

from etl.errors import ConfigurationError
from etl.model.report import RefreshReport
from tests.support.command import Etl
from tests.unit.cli.fake_app import FakeApp

REPORT = RefreshReport("config:api", "openai", documents=1, written=1)


def test_refresh_prints_one_line_of_counts(etl: Etl) -> None:
    app = FakeApp(REPORT)
    result = etl("refresh", "config:api", "openai", app=app)
    assert result.out == "config:api openai: 1 written, 0 evicted, 0 rejected, 0 deferred\n"
    assert app.asked == [("refresh", "config:api", "openai")]


def test_refresh_without_name_is_of_the_whole_family(etl: Etl) -> None:
    app = FakeApp(REPORT)
    assert etl("refresh", "config:api", app=app).code == 0
    assert app.asked == [("refresh", "config:api", None)]


def test_json_is_one_document(etl: Etl) -> None:
    result = etl("refresh", "config:api", "openai", "--json", app=FakeApp(REPORT))
    assert json.loads(result.out) == {
        "family": "config:api",
        "name": "openai",
        "documents": 1,
        "written": 1,
        "evicted": 0,
        "rejected": 0,
        "deferred": 0,
    }


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_name_without_document_is_an_error(etl: Etl, options: tuple[str, ...]) -> None:
    """A typing error must not look like success."""
    result = etl(
        "refresh", "config:api", "opnai", *options, app=FakeApp(RefreshReport("config:api", "opnai"))
    )
    assert result.code == 1
    assert "config:api opnai: no document in MongoDB has this name, so nothing was written" in (
        result.err if not options else json.loads(result.out)["error"]
    )


def test_family_without_documents_is_no_error(etl: Etl) -> None:
    """It is reported: the family may be empty for good reasons."""
    result = etl("refresh", "config:api", app=FakeApp(RefreshReport("config:api", None)))
    assert result.code == 0
    assert result.out.endswith(" 0 deferred; MongoDB has no document of this family\n")


def test_unknown_family_is_refused(etl: Etl) -> None:
    """The message lists the families."""
    app = FakeApp(REPORT)
    result = etl("refresh", "config:apy", app=app)
    assert result.code == 2
    assert "the families are: mcp:tool, " in result.err
    assert app.asked == []


def test_error_of_the_application_is_printed(etl: Etl) -> None:
    result = etl("refresh", "etl:last_sync", app=FakeApp(ConfigurationError("nothing fills it")))
    assert (result.code, result.err) == (2, "error: nothing fills it\n")
