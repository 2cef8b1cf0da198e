"""Every error this product raises, sorted by what the caller should do about it.

| class            | what to do                                         | exit code |
|------------------|----------------------------------------------------|-----------|
| `Transient`      | try again: the server is away, busy or full        | 1         |
| `CycleFailed`    | give up this cycle, the next one may do better     | 1         |
| `LeaseLost`      | stop at once: another holder has taken over        | 1         |
| `Misconfigured`  | a person must change a setting, a role or a command| 2         |
| `Locked`         | come back later: another holder is syncing         | 75        |

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
    """The lease ran out or the fencing token is no longer the newest: nothing more may be written."""


class Misconfigured(EtlError):
    """Settings, credentials, roles or arguments are wrong; only a person can mend it."""

    exit_code: ClassVar[int] = 2


class AccessDenied(Misconfigured):
    """The user lacks a right; somebody has to grant it."""


class Locked(EtlError):
    """Another holder is syncing this collection (`os.EX_TEMPFAIL`, sysexits.h)."""

    exit_code: ClassVar[int] = 75


class Interrupted(EtlError):
    """Asked to stop (Ctrl-C, SIGTERM) while waiting or between two batches."""

    exit_code: ClassVar[int] = 130


def whereabouts(error: BaseException) -> str:
    """The kind of an unforeseen error and its place, without its message: that may hold a secret."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"unforeseen {type(error).__name__}{place}"
