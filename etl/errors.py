"""Every error this product raises, sorted by what the caller should do about it.

| class            | what to do                                         | exit code |
|------------------|----------------------------------------------------|-----------|
| `Transient`      | try again: the server is away, busy or full        | 1         |
| `CycleFailed`    | give up this cycle, the next one may do better     | 1         |
| `LeaseLost`      | stop at once: another holder has taken over        | 1         |
| `Misconfigured`  | a person must change a setting, a role or a command| 2         |
| `LeaseHeldError` | come back later: another holder is at work         | 75        |

A document that cannot be applied is no error but a `schemas.entries.Reject`. Messages are one
line, name the address and the way out, and never hold a secret or a document's content.
"""

import traceback
from pathlib import Path
from typing import ClassVar


class EtlError(Exception):
    """The base of all of them; `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class Transient(EtlError):
    """The server is away, failing over, loading or out of memory: the same call may succeed later."""


class Overtaken(Transient):
    """Somebody else wrote between a look and the write that was to follow: look again, at once."""


class CacheAway(Transient):
    """Redis itself does not answer, so nothing can be recorded there either."""


class CycleFailed(EtlError):
    """This cycle cannot go on, and trying again at once would not help."""


class LeaseLost(CycleFailed):
    """The fencing token is no longer the newest: nothing more may be written.

    Args:
        newest: the token that Redis holds, `<number>:<holder>`; None or empty where it holds none.
    """

    def __init__(self, newest: str | None) -> None:
        holder = (newest or "").partition(":")[2]
        super().__init__(
            f"lost the lease: {holder} has taken over"
            if holder
            else "lost the lease: its fence is gone from Redis, which was flushed or has evicted it"
        )


class Misconfigured(EtlError):
    """Settings, credentials, roles or arguments are wrong; only a person can mend it."""

    exit_code: ClassVar[int] = 2


class AccessDenied(Misconfigured):
    """The user lacks a right; somebody has to grant it."""


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


class TokenLostError(EtlError):
    """The oplog does not go back to the resume token: what happened in between is not known."""


class InvalidatedError(EtlError):
    """The collection that is followed was dropped or renamed, or its database was dropped."""


class StreamRefusedError(Misconfigured):
    """The server has no change streams, or the user may not open one."""


def whereabouts(error: BaseException) -> str:
    """The kind of an unforeseen error and its place, without its message: that may hold a secret."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"unforeseen {type(error).__name__}{place}"
