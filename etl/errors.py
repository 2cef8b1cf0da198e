"""All errors, by what the caller should do.

| class                | what to do                                         | exit code |
|----------------------|----------------------------------------------------|-----------|
| `TransientError`     | retry: the server does not answer, is busy or full | 1         |
| `CycleFailed`        | end this run; the next one may succeed             | 1         |
| `LeaseLost`          | stop immediately: another holder has taken over    | 1         |
| `ConfigurationError` | change a setting, a role or the command            | 2         |
| `LeaseHeldError`     | try again later: another holder is working         | 75        |

A document that cannot be applied is not an error but a `schemas.operations.Reject`. Messages are one line, name the
address and what to do, and contain no secret and no content of a document.
"""

import traceback
from pathlib import Path
from typing import ClassVar


class EtlError(Exception):
    """Base of all errors; `exit_code` is that of the command line."""

    exit_code: ClassVar[int] = 1


class TransientError(EtlError):
    """The server does not answer, is failing over, loading or out of memory: the same call may succeed later."""


class RedisUnavailable(TransientError):
    """Redis does not answer, so the failure cannot be recorded there either."""


class CycleFailed(EtlError):
    """This run cannot continue, and an immediate retry would not help."""


class LeaseLost(CycleFailed):
    """The fencing token is not the newest any more: nothing may be written.

    Args:
        newest: the token in Redis, `<number>:<holder>`; None or empty if there is none.
    """

    def __init__(self, newest: str | None) -> None:
        self.holder = (newest or "").partition(":")[2]
        """The other holder; empty if the fence is gone."""
        super().__init__(
            f"lost the lease: {self.holder} has taken over"
            if self.holder
            else "lost the lease: its fence is gone from Redis, which was flushed or has evicted it"
        )


class ConfigurationError(EtlError):
    """Settings, credentials, roles or arguments are wrong."""

    exit_code: ClassVar[int] = 2


class AccessDenied(ConfigurationError):
    """The user lacks a right."""


class LeaseHeldError(EtlError):
    """Another holder has the lease (`os.EX_TEMPFAIL`, sysexits.h), for `seconds` unless it renews it."""

    exit_code: ClassVar[int] = 75

    def __init__(self, holder: str, seconds: float) -> None:
        super().__init__(
            f"{holder} is at work on it (its lease lasts {seconds:.0f} s more): try again when it is done"
        )
        self.holder = holder
        self.seconds = seconds


class Interrupted(EtlError):
    """Asked to stop (Ctrl-C, SIGTERM) while waiting or between two batches."""

    exit_code: ClassVar[int] = 130


class MissedError(EtlError):
    """A follower cannot go on where it was; a cycle and a reconciliation find what it has missed."""

    reason: ClassVar[str]
    """As in the log and the metrics."""


class TokenLostError(MissedError):
    """The oplog does not go back to the resume token."""

    reason: ClassVar[str] = "token_lost"


class InvalidatedError(MissedError):
    """The collection that is followed was dropped or renamed, or its database was dropped."""

    reason: ClassVar[str] = "invalidated"


class FailoverError(MissedError):
    """A primary of Redis was replaced or restarted: it may lack writes that were acknowledged."""

    reason: ClassVar[str] = "failover"


class StreamRefusedError(ConfigurationError):
    """The server has no change streams, or the user may not open one."""


def error_location(error: BaseException) -> str:
    """The type of an unexpected error and its location, without its message, which may contain a secret."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"unforeseen {type(error).__name__}{place}"
