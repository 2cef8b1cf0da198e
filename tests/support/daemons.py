"""A daemon as a process: its settings, its URL, its end."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import redis
from pymongo.collection import Collection

from etl.demo.process import free_port
from tests.factories import api
from tests.support.http import get
from tests.support.types import Document

STATE_PREFIX = "{etl:last_sync:promptContent}:v2:"
LEADER, LEASE, HISTORY = f"{STATE_PREFIX}leader", f"{STATE_PREFIX}lease", f"{STATE_PREFIX}history"

Process = subprocess.Popen[str]


def provider(number: int) -> Document:
    """A document of `config:api`, written now."""
    return api(f"p{number}", datetime.now(UTC))


def key(number: int) -> str:
    """The key of that document."""
    return f"config:api:p{number}"


def every(seconds: int) -> dict[str, str]:
    """Variables for a daemon with this interval, on a free port."""
    return {
        "ETL_SCHEDULE__CYCLE_SECONDS": str(seconds),
        "ETL_LEASE__SECONDS": "1",
        "ETL_HTTP__PORT": str(free_port()),
        "ETL_LOG__FORMAT": "json",
    }


def url_of(settings: Mapping[str, str]) -> str:
    """The URL of that daemon."""
    return f"http://127.0.0.1:{settings['ETL_HTTP__PORT']}"


def is_ready(url: str) -> bool:
    """Whether `/readyz` answers 200."""
    try:
        return get(f"{url}/readyz").code == 200
    except OSError:
        return False


def ended(
    process: Process, number: signal.Signals = signal.SIGTERM, seconds: float = 20
) -> list[dict[str, Any]]:
    """Stop a daemon within `seconds`; returns the lines of its log."""
    process.send_signal(number)
    _, log = process.communicate(timeout=seconds)
    assert process.returncode == 0
    return [json.loads(line) for line in log.splitlines()]


def health_check() -> list[str]:
    """The health check of the image."""
    return _in_dockerfile(r"^HEALTHCHECK .*CMD (\[.+?\])$")


def entry_point() -> list[str]:
    """The command that the image starts."""
    return _in_dockerfile(r"^ENTRYPOINT (\[.+?\])$")


def _in_dockerfile(pattern: str) -> list[str]:
    text = (Path(__file__).parents[2] / "Dockerfile").read_text("utf-8").replace("\\\n", "")
    [command] = re.findall(pattern, text, re.MULTILINE)
    words: list[str] = json.loads(command)
    return words


def leader(client: redis.Redis) -> int | None:
    """The process id of the leader."""
    holder = client.get(LEADER)
    return int(str(holder).split(":")[-2]) if holder else None


class Writer:
    """Writes twenty documents a second; `written` has the time of each write."""

    def __init__(self, collection: Collection[Document]) -> None:
        self._collection = collection
        self.written: list[float] = []

    def write(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._collection.insert_one(provider(len(self.written)))
            self.written.append(time.monotonic())
            time.sleep(0.05)


class Reader:
    """Polls Redis for the documents; `seen` has the time when each was first found."""

    def __init__(self, client: redis.Redis, writer: Writer) -> None:
        self._client = client
        self._writer = writer
        self.seen: dict[int, float] = {}

    def read(self, until: Callable[[], bool]) -> None:
        while not until():
            missing = [n for n in range(len(self._writer.written)) if n not in self.seen]
            present = [n for n in missing if self._client.exists(key(n))]
            self.seen |= dict.fromkeys(present, time.monotonic())
            time.sleep(0.02)

    @property
    def is_done(self) -> bool:
        """Whether all documents have been found."""
        return len(self.seen) == len(self._writer.written)

    def delays(self) -> list[float]:
        """The delay of each write until it was found."""
        return [self.seen[n] - at for n, at in enumerate(self._writer.written)]
