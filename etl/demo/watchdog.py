"""Kill a server and remove its folder when its owner is gone, also after `kill -9` of the owner.

It is a child process of the owner that waits until its parent changes. The usual means fail here:
`PR_SET_PDEATHSIG` is Linux only, needs code between fork and exec, and fires when the forking *thread* ends,
which may be before the owner ends; a pipe that closes with the owner stays open as long as a worker that the
owner forked is alive.

It runs as a script with the standard library only, so that it starts fast.
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


def record_pid(folder: Path, pid: int) -> None:
    """Record the process that the watchdog of `folder` has to kill."""
    (folder / "pid").write_text(str(pid))


def main(owner: int, folder: Path) -> None:
    """Wait until the parent is no longer `owner`, kill the process recorded in `folder`, remove `folder`."""
    while os.getppid() == owner:
        time.sleep(0.1)
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
