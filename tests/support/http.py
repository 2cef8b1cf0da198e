"""HTTP requests to the daemon."""

import json
import urllib.error
import urllib.request
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """The answer to a request."""

    code: int
    text: str
    kind: str

    @property
    def json(self) -> Any:
        """The body, parsed as JSON."""
        assert self.kind == "application/json"
        return json.loads(self.text)


def get(url: str, accept: str = "*/*", seconds: float = 20, method: str = "GET") -> Answer:
    """Send one request, by default a GET."""
    request = urllib.request.Request(url, headers={"Accept": accept}, method=method)  # noqa: S310 (our own loopback)
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310
            return Answer(answer.status, answer.read().decode(), answer.headers["content-type"])
    except urllib.error.HTTPError as refusal:
        with refusal:
            return Answer(refusal.code, refusal.read().decode(), refusal.headers["content-type"])
