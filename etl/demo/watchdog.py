"""Ends a server whose owner is gone, and removes its folder: the owner may have been killed with `kill -9`.

It is a process of its own, a child of the owner, that waits until its parent is another. That holds
where the usual means do not: `PR_SET_PDEATHSIG` is Linux only, needs code between fork and exec, and
fires when the *thread* that forked ends, which need not be the end of the owner; a pipe that closes with
the owner stays open as long as a worker the owner forked lives.

Run as a script, with nothing but the standard library, so that it starts in an instant.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path


def watch(folder: Path) -> subprocess.Popen[bytes]:
    """Start the watchdog of the server in `folder`; its owner is this process."""
    return subprocess.Popen(  # noqa: S603 - this very file
        [sys.executable, "-I", __file__, str(os.getpid()), str(folder)],
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # it must survive the Ctrl-C that ends its owner
    )


def note(folder: Path, pid: int) -> None:
    """Tell the watchdog of `folder` which process to end."""
    (folder / "pid").write_text(str(pid))


def main(owner: int, folder: Path) -> None:
    """Wait until the parent is no longer `owner`, end the process noted in `folder`, remove `folder`."""
    while os.getppid() == owner:
        time.sleep(0.1)
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
