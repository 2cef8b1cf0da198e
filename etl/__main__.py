"""The command `etl`; `python -m etl` is the same."""

import gc
import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Carry out the command line of this process.

    Loading a module makes no garbage, and looking for some took an eighth of the start: so the collector
    is off until all that a command needs is there (`all_is_loaded`).
    """
    _open_closed_streams()
    # What asks for an end while this loads waits until `etl.cli.stopping` knows what to do about it: the
    # kernel drops signals without an action when they are for the first process of a container.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
    gc.disable()
    try:
        from etl.cli import main as carry_out  # noqa: PLC0415 (it loads the rest)
    except KeyboardInterrupt:
        sys.exit(130)
    carry_out()


def _open_closed_streams() -> None:
    """Have a standard stream that was closed (`etl run >&-`) lead to nowhere.

    The next file or connection would otherwise get its number, and Python has no object for it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
            os.set_inheritable(number, True)  # noqa: FBT003 (positional only): worker processes have it too
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


if __name__ == "__main__":
    main()
