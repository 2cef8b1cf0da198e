"""The command `etl`; `python -m etl` is the same."""

import gc
import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line of this process.

    Imports create no garbage, and collecting took an eighth of the start: so the garbage collector is off until all
    modules of the command are loaded (`collect_garbage`).
    """
    _open_closed_streams()
    # Block these signals until `etl.cli.signals` has set its handlers: for the first process of a container the
    # kernel drops signals that have no handler.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGHUP})
    gc.disable()
    try:
        from etl.cli import main as carry_out  # noqa: PLC0415 (it loads the rest)
    except KeyboardInterrupt:
        sys.exit(130)
    carry_out()


def _open_closed_streams() -> None:
    """Open closed standard streams (`etl run >&-`) on /dev/null.

    Otherwise the next file or connection would get their number, and Python would have no object for them.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            os.set_inheritable(number, True)  # noqa: FBT003 (positional only): worker processes have it too
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


if __name__ == "__main__":
    main()
