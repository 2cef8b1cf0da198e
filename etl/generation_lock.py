"""The lock of a campaign whose content is being generated: for generators written in Python.

While `lock:content_generation:{campana_id}` exists, the ETL writes nothing of that campaign.

    with GenerationLock(redis.Redis(), "camp_2025_tech") as lock:
        for segment in segments:
            generate(segment)
            lock.extend()

It is `redis.lock.Lock` of the client that is handed in: taken by SET NX with a life, and released or
extended by a script that compares the holder first.
"""

import os
import secrets
import socket
from types import TracebackType
from typing import Any, Protocol, Self

from etl.errors import EtlError
from schemas.families import GENERATION_LOCK


class LockHeld(EtlError):
    """Another process generates content for this campaign."""


class LockLost(EtlError):
    """The lock ran out, or another process has it by now: what is being generated may be done twice."""


class _Lock(Protocol):
    def acquire(self, *, blocking: bool, blocking_timeout: float, token: str) -> bool: ...
    def extend(self, additional_time: float, *, replace_ttl: bool) -> Any: ...
    def release(self) -> Any: ...


class Client(Protocol):
    """What is needed of a `redis.Redis`."""

    def lock(self, name: str, timeout: float, *, thread_local: bool) -> Any:
        """A `redis.lock.Lock`."""
        ...


def unique_process_id() -> str:
    """A name no other holder has: `host-pid-nonce`, as process ids come back on one host and meet on many."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


class GenerationLock:
    """The lock of one campaign, for one holder.

    Args:
        client: a `redis.Redis`.
        campana_id: the campaign.
        process_id: the value of the key while it is held, unique among all processes; made up if
            not given.
        seconds: how long it lasts unless extended.
    """

    def __init__(
        self,
        client: Client,
        campana_id: str,
        process_id: str | None = None,
        seconds: float = GENERATION_LOCK.ttl or 30,
    ) -> None:
        self.key = GENERATION_LOCK.key(campana_id=campana_id)
        self.process_id = process_id or unique_process_id()
        self._seconds = seconds
        self._lock: _Lock = client.lock(self.key, seconds, thread_local=False)

    def acquire(self, wait_seconds: float = 0) -> bool:
        """Take it, waiting up to `wait_seconds` for another holder; says whether it was taken."""
        return self._lock.acquire(
            blocking=wait_seconds > 0, blocking_timeout=wait_seconds, token=self.process_id
        )

    def extend(self) -> None:
        """Let it last its full time from now.

        Raises:
            LockLost: it is no longer held by this holder.
        """
        try:
            self._lock.extend(self._seconds, replace_ttl=True)
        except ValueError:  # redis.exceptions.LockError is one
            raise LockLost(f"{self.key} is no longer held by {self.process_id}") from None

    def release(self) -> bool:
        """Give it back, and only if it is this holder's; says whether it still was."""
        try:
            self._lock.release()
        except ValueError:  # redis.exceptions.LockError is one
            return False
        return True

    def __enter__(self) -> Self:
        if not self.acquire():
            raise LockHeld(f"{self.key} is held: content for this campaign is being generated already")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
