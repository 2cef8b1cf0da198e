"""Asking the daemon over HTTP."""

import json
import urllib.error
import urllib.request
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What came back."""

    code: int
    text: str
    kind: str

    @property
    def json(self) -> Any:
        """The body, which is JSON."""
        assert self.kind == "application/json"
        return json.loads(self.text)


def get(url: str, accept: str = "*/*", seconds: float = 20, method: str = "GET") -> Answer:
    """One request, a GET unless told otherwise."""
    request = urllib.request.Request(url, headers={"Accept": accept}, method=method)  # noqa: S310 (our own loopback)
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310
            return Answer(answer.status, answer.read().decode(), answer.headers["content-type"])
    except urllib.error.HTTPError as refusal:
        with refusal:
            return Answer(refusal.code, refusal.read().decode(), refusal.headers["content-type"])
