"""The files of the status page: small, self-contained, without inline code."""

import re
import urllib.request
from collections.abc import Iterator
from importlib.resources import files

import pytest

from etl.demo.process import HOST
from etl.monitoring.health import HealthSnapshot
from etl.monitoring.page import HEADERS
from etl.monitoring.server import Serving
from tests.support.http import get
from tests.support.statuses import endpoints, status

FOLDER = files("etl.monitoring.page")
NAMES = ("index.html", "page.css", "page.js", "icon.svg")


def content(name: str) -> str:
    """The text of a file of the page."""
    return FOLDER.joinpath(name).read_text("utf-8")


@pytest.fixture
def url() -> Iterator[str]:
    """The URL of a server with a healthy status."""
    serving = Serving(endpoints(lambda: HealthSnapshot([status()])).app(), HOST, 0)
    serving.start()
    yield serving.url
    serving.stop()


def test_page_is_smaller_than_60_kb() -> None:
    """All files, uncompressed."""
    assert sum(len(FOLDER.joinpath(name).read_bytes()) for name in NAMES) < 60_000


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/page.css", "text/css; charset=utf-8"),
        ("/page.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ],
)
def test_files_have_a_strict_content_security_policy(url: str, path: str, kind: str) -> None:
    """No inline code, no other site, no cookie."""
    with urllib.request.urlopen(f"{url}{path}") as answer:  # noqa: S310 (our own loopback)
        headers = dict(answer.headers.items())
    assert headers["content-type"] == kind
    assert HEADERS.items() <= headers.items()
    policy = dict(part.split(maxsplit=1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert {policy["script-src"], policy["style-src"], policy["connect-src"]} == {"'self'"}
    assert "set-cookie" not in headers


def test_page_loads_nothing_from_other_sites() -> None:
    """The SVG namespace is a name, not an address."""
    for name in NAMES:
        text = content(name).replace("http://www.w3.org/2000/svg", "")
        assert "//" not in re.sub(r"^\s*//.*|\s// .*", "", text, flags=re.MULTILINE), name
    assert re.findall(r'(?:src|href)="([^"#]+)"', content("index.html")) == [
        *("icon.svg", "page.css", "page.js", "icon.svg"),
        *("status", "status", "history", "metrics", "readyz"),
    ]


def test_page_never_inserts_markup() -> None:
    """It has no inline style and no inline handler either."""
    script = content("page.js")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|Function\(", script
    )
    assert not re.search(r"<script(?! src)|<style|\sstyle=|\son\w+=", content("index.html"))


def test_only_get_is_allowed(url: str) -> None:
    for path in ("/", "/status", "/history"):
        assert get(f"{url}{path}", method="POST").code == 405
