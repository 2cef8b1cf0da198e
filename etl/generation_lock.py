"""The lock of a campaign, for generators written in Python.

While `lock:content_generation:{campana_id}` exists, the ETL writes nothing of that campaign.

    with GenerationLock(redis.Redis(), "camp_2025_tech") as lock:
        for segment in segments:
            generate(segment)
            lock.extend()

It uses `redis.lock.Lock`: acquired by SET NX with a TTL, released and extended by a script that compares the holder.
"""

import os
import secrets
import socket
from types import TracebackType
from typing import Any, Protocol, Self

from etl.errors import EtlError
from schemas.families import GENERATION_LOCK


class LockHeld(EtlError):
    """Another process holds the lock of this campaign."""


class LockLost(EtlError):
    """The lock has expired or another process holds it: the content may be generated twice."""


class _Lock(Protocol):
    def acquire(self, *, blocking: bool, blocking_timeout: float, token: str) -> bool: ...
    def extend(self, additional_time: float, *, replace_ttl: bool) -> Any: ...
    def release(self) -> Any: ...


class Client(Protocol):
    """The part of `redis.Redis` that is used."""

    def lock(self, name: str, timeout: float, *, thread_local: bool) -> Any:
        """A `redis.lock.Lock`."""
        ...


def unique_process_id() -> str:
    """A unique name, `host-pid-nonce`: process ids are reused, and equal on different hosts."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


class GenerationLock:
    """The lock of one campaign, for one holder.

    Args:
        client: a `redis.Redis`.
        campana_id: the campaign.
        process_id: the value of the key, unique among all processes; generated if not given.
        seconds: TTL of the lock.
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
        """Acquire it, waiting up to `wait_seconds`; return whether it was acquired."""
        return self._lock.acquire(
            blocking=wait_seconds > 0, blocking_timeout=wait_seconds, token=self.process_id
        )

    def extend(self) -> None:
        """Renew its TTL.

        Raises:
            LockLost: this holder does not hold it any more.
        """
        try:
            self._lock.extend(self._seconds, replace_ttl=True)
        except ValueError:  # redis.exceptions.LockError is one
            raise LockLost(f"{self.key} is no longer held by {self.process_id}") from None

    def release(self) -> bool:
        """Release it if this holder still holds it; return whether it did."""
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
